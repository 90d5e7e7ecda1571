"""Is an official layout there? What all readers ask, with errors that name the file."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pretrain.evaluate.benchmarks.base import Coverage, LayoutError, Options
from recaption.common.config import UserError, nearest_name
from recaption.common.files import read_json

_NUM_NAMED = 3  # missing files that an error names


class Present:
    """Which files of a benchmark are there; what is not is remembered by name."""

    def __init__(self, root: Path, options: Options) -> None:
        self.root = root
        self.allow_missing = options.allow_missing
        self._is_there: dict[str, bool] = {}

    def has(self, name: str) -> bool:
        """Whether `name`, relative to the root, is a file."""
        if name not in self._is_there:
            self._is_there[name] = (self.root / name).is_file()
        return self._is_there[name]

    def add_missing(self, name: str) -> None:
        """Remembers what is missing without being a file with a known name."""
        self._is_there[name] = False

    @property
    def missing(self) -> list[str]:
        return [name for name, is_there in self._is_there.items() if not is_there]

    def coverage(
        self, num_found: int, num_expected: int, notes: Mapping[str, int] | None = None
    ) -> Coverage:
        """What is there, once everything was asked for.

        Raises:
            LayoutError: something is missing though nothing may, or nothing is left.
        """
        missing = self.missing
        if num_found == 0:
            raise LayoutError(f"{self.root} holds none of the benchmark's {self._named(missing)}")
        if missing and not self.allow_missing:
            raise LayoutError(
                f"{self.root} lacks {self._named(missing)}; allow_missing=true evaluates on the "
                f"{num_found:,} of {num_expected:,} samples that are there"
            )
        kept = {name: count for name, count in (notes or {}).items() if count}
        return Coverage(num_expected, missing, kept)

    def _named(self, missing: Sequence[str]) -> str:
        if not missing:
            return "samples"
        more = f" and {len(missing) - _NUM_NAMED:,} more" if len(missing) > _NUM_NAMED else ""
        return ", ".join(missing[:_NUM_NAMED]) + more


def need(root: Path, *names: str, kind: str = "file") -> Path:
    """The first of `names` that is there below the root.

    Raises:
        LayoutError: none of them is.
    """
    if not root.is_dir():
        raise LayoutError(f"{root} is no folder: give the benchmark's own as its root")
    for name in names:
        path = root / name
        if path.is_file() if kind == "file" else path.is_dir():
            return path
    raise LayoutError(f"{root} has no {kind} {' or '.join(names)}, which the official layout has")


def choose_variant(options: Options, variants: Sequence[str]) -> str:
    """The variant that is asked for; the first if none is.

    Raises:
        UserError: there is no such variant.
    """
    if not options.variant:
        return variants[0]
    if options.variant not in variants:
        nearest = nearest_name(options.variant, variants)
        meant = f" (did you mean {nearest}?)" if nearest else ""
        raise UserError(f"variant={options.variant}: one of {', '.join(variants)}{meant}")
    return options.variant


def read_annotations(path: Path, kind: type) -> Any:
    """The JSON of an annotation file, whose outermost value is a `kind` (dict or list).

    Raises:
        LayoutError: it cannot be read, is no JSON (a download that broke off), or another value.
    """
    try:
        value = read_json(path)
    except (OSError, UserError) as error:
        raise LayoutError(_with_path(path, error)) from None
    if not isinstance(value, kind):
        raise LayoutError(f"{path} holds a {type(value).__name__}, not a {kind.__name__}")
    return value


def read_json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where it stands (file and line, for errors) and each object of a file of JSON lines.

    Raises:
        LayoutError: it cannot be read, or a line is no JSON object.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise LayoutError(_with_path(path, error)) from None
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise LayoutError(f"{where} is no JSON ({error}): is the file whole?") from None
        if not isinstance(row, dict):
            raise LayoutError(f"{where} holds a {type(row).__name__}, not an object")
        yield where, row


def field(row: Any, name: str, kind: type | tuple[type, ...], where: str) -> Any:
    """A field of a row of annotations.

    Raises:
        LayoutError: it is absent or of another type.
    """
    if not isinstance(row, dict) or name not in row:
        raise LayoutError(f"{where} has no field {name}")
    value = row[name]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise LayoutError(f"{where}: {name} is a {type(value).__name__}")
    return value


def text_field(row: Any, name: str, where: str) -> str:
    """A field that holds a text with something in it.

    Raises:
        LayoutError: it is absent, no text, or empty.
    """
    value = field(row, name, str, where).strip()
    if not value:
        raise LayoutError(f"{where}: {name} is empty")
    return str(value)


def _with_path(path: Path, error: Exception) -> str:
    message = str(error)
    return message if str(path) in message else f"{path} cannot be read: {message}"
