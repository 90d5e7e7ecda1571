"""`SHA256SUMS`: what closes a release. The same lines as `sha256sum` writes and checks."""

from pathlib import Path

from recaption.common.config import UserError
from recaption.common.files import sha256_file

SUMS = "SHA256SUMS"


def write_checksums(folder: Path) -> None:
    """Writes the checksums of all files of `folder`, by their relative paths."""
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name != SUMS
    )
    lines = [f"{sha256_file(folder / name)}  {name}\n" for name in names]
    (folder / SUMS).write_text("".join(lines))


def check_checksums(folder: Path) -> None:
    """Compares every listed file with its checksum.

    Raises:
        UserError: naming the first file that is missing or differs, or if there is no list.
    """
    path = folder / SUMS
    if not path.is_file():
        raise UserError(f"{folder} holds no {SUMS}: it is no whole release")
    for line in path.read_text().splitlines():
        expected, _, name = line.partition("  ")
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing, though {SUMS} lists it")
        if sha256_file(folder / name) != expected:
            raise UserError(f"{folder / name} is damaged: its checksum is not that in {SUMS}")
