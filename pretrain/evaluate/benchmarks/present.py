"""What of a benchmark is there, for sets that are not for retrieval; and fields with their type."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pretrain.evaluate.benchmarks.base import Coverage, LayoutError, Options
from pretrain.evaluate.benchmarks.layout import check_whole, field, find_file


class Present:
    """Files that are there; everything that is not is remembered by name, and oddities counted."""

    def __init__(self, benchmark: str, root: Path, options: Options) -> None:
        self.benchmark = benchmark
        self.root = root
        self.options = options
        self.notes: Counter[str] = Counter()
        self._is_there: dict[str, bool] = {}

    def has(self, name: str) -> bool:
        """Whether `name`, relative to the root, is a file."""
        if name not in self._is_there:
            self._is_there[name] = (self.root / name).is_file()
        return self._is_there[name]

    def lacks(self, what: str) -> None:
        """Remembers what is passed over though it is no file of that name."""
        self._is_there[what] = False

    def texts(self, texts: Sequence[tuple[str, str]]) -> list[str] | None:
        """Texts given as (text, where it stands), stripped; None if one of them is empty."""
        empty = [where for text, where in texts if not text.strip()]
        for where in empty:
            self.lacks(f"the text of {where}")
        return None if empty else [text.strip() for text, _ in texts]

    def coverage(self, num_found: int, num_expected: int, inputs: Sequence[Path]) -> Coverage:
        """Once everything was asked for.

        Args:
            inputs: the annotation files.

        Raises:
            LayoutError: something is missing and may not be, or nothing was found.
        """
        missing = [name for name, is_there in self._is_there.items() if not is_there]
        check_whole(self.benchmark, self.root, num_found, num_expected, missing, self.options)
        notes = {name: count for name, count in self.notes.items() if count}
        return Coverage(num_expected, missing, notes, inputs)


def typed_field(record: Any, name: str, kind: type | tuple[type, ...], where: str) -> Any:
    """A field of one of these types. Raises: LayoutError: it is not there, or of another."""
    value = field(record, name, where)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise LayoutError(f"{where}: field {name!r} is a {type(value).__name__}")
    return value


def folder_with(root: Path, folders: Sequence[str], names: Sequence[str]) -> Path:
    """The first of `folders` below the root that holds one of the files `names`.

    Raises:
        LayoutError: none does; only the first name is told, as the others stand in for it.
    """
    for folder in folders:
        if any((root / folder / name).is_file() for name in names):
            return root / folder
    return find_file(root, names[0]).parent
