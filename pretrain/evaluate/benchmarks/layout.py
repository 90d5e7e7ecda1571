"""Reading what the authors of a benchmark publish, and naming what is wrong with a copy of it."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretrain.evaluate.benchmarks.base import (
    Coverage,
    LayoutError,
    Options,
    Picture,
    RetrievalSet,
)

_NUM_NAMED = 3  # files that an error names


@dataclass(frozen=True)
class Row:
    """One image and one text of it, as an annotation file has them."""

    image: str  # relative to the root
    text: str
    where: str  # file and line or field, for errors


def find_file(root: Path, *names: str) -> Path:
    """The first of `names`, relative to the root, that is there.

    Raises:
        LayoutError: none is; it says what the root holds, and where one of them is nearby.
    """
    check_root(root)
    for name in names:
        if (root / name).is_file():
            return root / name
    wanted = " or ".join(names)
    neighbours = [root.parent, *sorted(path for path in root.iterdir() if path.is_dir())]
    for folder in neighbours:
        if any((folder / name).is_file() for name in names):
            raise LayoutError(f"{root} holds no {wanted}, but {folder} does: give root={folder}")
    raise LayoutError(f"{root} holds no {wanted}; it holds {_listing(root)}")


def find_folder(root: Path, *names: str) -> str:
    """The first of `names` that is a folder of the root. Raises: LayoutError: none is."""
    check_root(root)
    for name in names:
        if (root / name).is_dir():
            return name
    raise LayoutError(f"{root} holds no folder {' or '.join(names)}; it holds {_listing(root)}")


def check_root(root: Path) -> None:
    """Raises: LayoutError: the root is no folder."""
    if not root.is_dir():
        raise LayoutError(f"root={root} is no folder")


def read_text(path: Path) -> str:
    """Raises: LayoutError: no UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise LayoutError(f"{path} is damaged: it is not UTF-8 ({error})") from None


def read_json_file(path: Path) -> Any:
    """Raises: LayoutError: not JSON, as a file that was cut off."""
    try:
        return json.loads(read_text(path))
    except ValueError as error:
        raise LayoutError(f"{path} is damaged: it is not JSON ({error}); copy it again") from None


def read_json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, object) of each line that is not empty. Raises: LayoutError: a line is no object."""
    for number, line in enumerate(read_text(path).splitlines(), 1):
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise LayoutError(f"{where} is damaged: no JSON ({error}); copy it again") from None
        if not isinstance(value, dict):
            raise LayoutError(f"{where} is no JSON object")
        yield where, value


def field(record: Any, name: str | int, where: str) -> Any:
    """`record[name]`. Raises: LayoutError: it is not there."""
    try:
        return record[name]
    except (KeyError, IndexError, TypeError):
        raise LayoutError(f"{where} has no field {name!r}: not the published layout") from None


def text_field(record: Any, name: str | int, where: str) -> str:
    """A field that holds text. Raises: LayoutError: it is not there, or no text."""
    value = field(record, name, where)
    if not isinstance(value, str):
        raise LayoutError(f"{where}: field {name!r} is {type(value).__name__}, not text")
    return value


def retrieval_set(
    name: str,
    root: Path,
    rows: Sequence[Row],
    num_expected: int,
    options: Options,
    inputs: Sequence[Path],
    missing: Sequence[str] = (),
) -> RetrievalSet:
    """Images in the order of their first row, each with all its texts.

    A row that stands there twice counts once. An image that has no file, a text that is empty, and
    images that the annotations lack are errors, or, with `allow_missing`, passed over and counted.

    Args:
        rows: of the annotation files.
        num_expected: images of the protocol.
        inputs: the annotation files.
        missing: what the reader itself had to pass over.

    Raises:
        LayoutError: something is missing, or nothing is left.
    """
    gone = list(missing)
    notes: Counter[str] = Counter()
    position_of: dict[str, int] = {}
    is_there: dict[str, bool] = {}
    texts: list[str] = []
    image_of_text: list[int] = []
    seen: set[tuple[str, str]] = set()
    for row in rows:
        if row.image not in is_there:
            is_there[row.image] = (root / row.image).is_file()
            if not is_there[row.image]:
                gone.append(row.image)
        if not is_there[row.image]:
            continue
        text = row.text.strip()
        if not text:
            gone.append(f"the text of {row.where}")
        elif (row.image, text) in seen:
            notes["rows that were there before"] += 1
        else:
            seen.add((row.image, text))
            image_of_text.append(position_of.setdefault(row.image, len(position_of)))
            texts.append(text)
    num_texts = Counter(image_of_text)
    notes["images with several texts"] = sum(count > 1 for count in num_texts.values())
    notes["texts that another image has, too"] = len(texts) - len(set(texts))
    check_whole(name, root, len(position_of), num_expected, gone, options)
    return RetrievalSet(
        images=[Picture(root, image) for image in position_of],
        texts=texts,
        image_of_text=image_of_text,
        coverage=Coverage(num_expected, gone, {k: n for k, n in notes.items() if n}, inputs),
    )


def check_whole(
    name: str,
    root: Path,
    num_found: int,
    num_expected: int,
    missing: Sequence[str],
    options: Options,
) -> None:
    """Raises: LayoutError: something is missing and may not be, or nothing was found."""
    if not num_found:
        first = f", as {missing[0]}" if missing else ""
        raise LayoutError(f"{name}: nothing of it is in {root}{first}")
    if options.allow_missing or (not missing and num_found == num_expected):
        return
    hint = "allow_missing=true goes on with what is there"
    if missing:
        named = ", ".join(missing[:_NUM_NAMED]) + (", ..." if len(missing) > _NUM_NAMED else "")
        raise LayoutError(f"{name}: {len(missing):,} missing in {root}: {named}; {hint}")
    raise LayoutError(
        f"{name}: {root} has {num_found:,} images, the protocol {num_expected:,}; {hint}"
    )


def _listing(root: Path) -> str:
    names = sorted(path.name + ("/" if path.is_dir() else "") for path in root.iterdir())
    if not names:
        return "nothing"
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
