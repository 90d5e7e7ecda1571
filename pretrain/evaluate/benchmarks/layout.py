"""Reading what the authors of a benchmark publish, and naming what is wrong with a copy of it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from pretrain.evaluate.benchmarks.base import DamagedError, LayoutError

#: How errors call the types of JSON.
_CALLED: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def find_file(root: Path, *names: str, is_root_sure: bool = False) -> Path:
    """The first of `names`, relative to the root, that is there.

    Args:
        is_root_sure: other files of the benchmark were found there: no other root is advised.

    Raises:
        LayoutError: none is; it says what the root holds, and where one of them is nearby.
    """
    check_root(root)
    for name in names:
        if (root / name).is_file():
            return root / name

    def holds(folder: Path) -> bool:
        return any(is_file(folder / name) for name in names)

    raise not_there(root, " or ".join(names), None if is_root_sure else holds)


def check_inside(name: str, where: str) -> None:
    """Raises: LayoutError: a name relative to the root leads out of it, or is no file's name.

    What a file of annotations names is read, scored and shown in the report.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise LayoutError(f"{where}: {name!r} leads out of the root")
    if not name or name.endswith("/"):
        raise LayoutError(f"{where}: {name!r} is no name of a file")


def is_file(path: Path) -> bool:
    """Whether it is one; not if it may not be looked at, or its name is longer than one can be."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Whether it is one; not if it may not be looked at."""
    try:
        return path.is_dir()
    except OSError:
        return False


def visible(folder: Path, pattern: str = "*") -> list[Path]:
    """What of a folder has a name that fits, in order, without hidden files and folders.

    Archives and disks that a Mac wrote hold a file ._NAME beside each NAME.
    """
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))


def find_folder(root: Path, *names: str, is_root_sure: bool = False) -> str:
    """The first of `names` that is a folder of the root. Args and raises: as `find_file`."""
    check_root(root)
    for name in names:
        if (root / name).is_dir():
            return name

    def holds(folder: Path) -> bool:
        return any(is_folder(folder / name) for name in names)

    raise not_there(root, f"folder {' or '.join(names)}", None if is_root_sure else holds)


def not_there(root: Path, wanted: str, holds: Callable[[Path], bool] | None) -> LayoutError:
    """That a root does not hold what is wanted, and which folder above or below it does, if any.

    Args:
        holds: whether a folder does; None: it is not looked for elsewhere.
    """
    below = sorted(path for path in root.iterdir() if is_folder(path))
    for folder in (root.absolute().parent, *below):
        if holds and holds(folder):
            return LayoutError(f"{root} holds no {wanted}, but {folder} does: give root={folder}")
    return LayoutError(f"{root} holds no {wanted}; it holds {_listing(root)}")


def check_root(root: Path) -> None:
    """Raises: LayoutError: the root is no folder."""
    if not root.is_dir():
        raise LayoutError(f"root={root} is no folder")


def read_text(path: Path) -> str:
    """Without the mark that some editors begin UTF-8 with. Raises: DamagedError: no UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DamagedError(
            f"{path} is damaged: it is not UTF-8 ({error}); copy it again, or save it as UTF-8"
        ) from None


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """(where, line) of each line that is not blank. Raises: DamagedError: no UTF-8.

    Only a newline ends a line: `str.splitlines` would cut a caption in two at U+2028 or \\x0b.
    """
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            yield f"{path}, line {number}", line


def read_json_file(path: Path, kind: type) -> Any:
    """What a file holds, which is of this type: dict or list.

    Raises:
        DamagedError: not JSON, as a file that was cut off.
        LayoutError: of another type.
    """
    value = _parse(read_text(path), str(path))
    if not isinstance(value, kind):
        raise LayoutError(
            f"{path} holds {_call(type(value))}, not {_call(kind)}: not the published layout"
        )
    return value


def read_json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, object) of each line that is not blank. Raises: LayoutError: a line is no object."""
    for where, line in read_lines(path):
        value = _parse(line, where)
        if not isinstance(value, dict):
            raise LayoutError(f"{where} is no JSON object")
        yield where, value


def field(record: Any, name: str | int, where: str) -> Any:
    """`record[name]`. Raises: LayoutError: it is not there."""
    try:
        return record[name]
    except (KeyError, IndexError, TypeError):
        raise LayoutError(f"{where} has no field {name!r}: not the published layout") from None


def typed_field(record: Any, name: str | int, kind: type | tuple[type, ...], where: str) -> Any:
    """A field of one of these types. Raises: LayoutError: it is not there, or of another."""
    value = field(record, name, where)
    if not isinstance(value, kind) or isinstance(value, bool):
        wanted = " or ".join(map(_call, kind if isinstance(kind, tuple) else (kind,)))
        raise LayoutError(f"{where}: field {name!r} is {_call(type(value))}, not {wanted}")
    return value


def list_field(record: Any, name: str | int, where: str) -> list[Any]:
    """A field that holds a list. Raises: LayoutError: it is not there, or no list."""
    found: list[Any] = typed_field(record, name, list, where)
    return found


def text_field(record: Any, name: str | int, where: str) -> str:
    """A field that holds text. Raises: LayoutError: it is not there, or no text."""
    found: str = typed_field(record, name, str, where)
    return found


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{where} is damaged: it is not JSON ({error}); copy it again") from None


def _call(kind: type) -> str:
    return _CALLED.get(kind, f"a {kind.__name__}")  # a pickle holds types that JSON has not


def _listing(root: Path) -> str:
    names = sorted(path.name + ("/" if is_folder(path) else "") for path in root.iterdir())
    if not names:
        return "nothing"
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
