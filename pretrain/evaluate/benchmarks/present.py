"""What of a benchmark is there, and what is not: the share that was scored stands on it."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pretrain.evaluate.benchmarks.base import Coverage, LayoutError, Options, Picture
from pretrain.evaluate.benchmarks.layout import check_inside, find_file, is_file
from pretrain.evaluate.benchmarks.picture_files import opens

_NUM_NAMED = 3  # files that an error names


class Present:
    """Files that are there; everything that is not is remembered by name, and oddities counted."""

    def __init__(self, benchmark: str, root: Path, options: Options) -> None:
        self.benchmark = benchmark
        self.root = root
        self.options = options
        self.notes: Counter[str] = Counter()
        self._is_there: dict[str, bool] = {}

    def has(self, name: str, where: str) -> bool:
        """Whether `name`, relative to the root, is a file.

        Args:
            where: file and entry that name it, for errors.

        Raises:
            LayoutError: it leads out of the root.
        """
        if name not in self._is_there:
            check_inside(name, where)
            self._is_there[name] = is_file(self.root / name)
        return self._is_there[name]

    def has_picture(self, name: str, where: str) -> bool:
        """Whether `name`, relative to the root, is a file that, with `allow_missing`, also opens.

        Without it a damaged one is an error when it is decoded. Args and raises: as `has`.
        """
        if name not in self._is_there and self.has(name, where) and self.options.allow_missing:
            self._is_there[name] = opens(Picture(self.root, name))
            self.notes["pictures that cannot be opened"] += not self._is_there[name]
        return self._is_there[name]

    def lacks(self, what: str) -> None:
        """Remembers what is passed over though it is no file of that name.

        Results may be published: what stands below the root is named from there.
        """
        self._is_there[what.replace(f"{self.root}/", "")] = False

    def texts(self, texts: Sequence[tuple[str, str]]) -> list[str] | None:
        """Texts given as (text, where it stands), stripped; None if one of them is empty."""
        empty = [where for text, where in texts if not text.strip()]
        for where in empty:
            self.lacks(f"the text of {where}")
        return None if empty else [self.text(text) for text, _ in texts]

    def text(self, text: str) -> str:
        """Stripped, and with U+FFFD for half a character, as CLIP's tokenizer reads it; counted.

        JSON can hold one, as of a caption that was cut off within an emoji ("\\ud83d"); it cannot
        be written as UTF-8, and not every tokenizer takes it.
        """
        whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        self.notes["texts with half a character"] += whole != text
        return whole.strip()

    def coverage(
        self,
        num_found: int,
        num_expected: int | None,
        inputs: Sequence[Path],
        num_texts: tuple[int, int | None] = (0, None),
    ) -> Coverage:
        """Once everything was asked for.

        Args:
            num_found: samples that are scored; as a rule images, as `num_expected`.
            num_expected: of the protocol; None: how many is not known, as some are not there.
            inputs: the annotation files.
            num_texts: of retrieval: those that are there, and those of the protocol, if it names a
                number.

        Raises:
            LayoutError: something is missing and may not be, nothing was found, or more than the
                protocol has, which is another set.
        """
        missing = [name for name, is_there in self._is_there.items() if not is_there]
        notes = {name: count for name, count in self.notes.items() if count}
        coverage = Coverage(num_expected, missing, notes, inputs, num_found, *num_texts)
        _check_whole(self.benchmark, self.root, coverage, self.options)
        return coverage


def folder_with(root: Path, folders: Sequence[str], names: Sequence[str]) -> Path:
    """The first of `folders` below the root that holds one of the files `names`.

    Raises:
        LayoutError: none does; only the first name is told, as the others stand in for it.
    """
    for folder in folders:
        if any((root / folder / name).is_file() for name in names):
            return root / folder
    return find_file(root, names[0]).parent


def _check_whole(name: str, root: Path, coverage: Coverage, options: Options) -> None:
    found, expected, missing = coverage.num_found, coverage.num_expected, coverage.missing
    if not found:
        first = f", as {missing[0]}" if missing else ""
        raise LayoutError(f"{name}: nothing of it is in {root}{first}")
    if expected is not None and found > expected:
        raise LayoutError(
            f"{name}: {root} has {found:,} images, more than the protocol's {expected:,}: is it "
            "another set, such as the one for training?"
        )
    hint = "allow_missing=true goes on with what is there"
    if options.allow_missing:
        return
    if missing:
        named = ", ".join(missing[:_NUM_NAMED]) + (", ..." if len(missing) > _NUM_NAMED else "")
        raise LayoutError(f"{name}: {len(missing):,} missing in {root}: {named}; {hint}")
    if found != expected:
        raise LayoutError(f"{name}: {root} has {found:,} images, the protocol {expected:,}; {hint}")
    if coverage.num_texts_expected not in (None, coverage.num_texts):
        raise LayoutError(
            f"{name}: {root} has {coverage.num_texts:,} texts of {found:,} images, the protocol "
            f"{coverage.num_texts_expected:,}; {hint}, beside which nothing published stands"
        )
