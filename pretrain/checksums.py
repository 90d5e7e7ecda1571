"""`SHA256SUMS`: what closes a release. The same lines as `sha256sum` writes and checks."""

import re
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from recaption.common.config import UserError
from recaption.common.files import sha256_file

SUMS = "SHA256SUMS"


def write_checksums(folder: Path) -> None:
    """Writes the checksums of all files of `folder`, by their relative paths."""
    lines = [f"{sha256_file(folder / name)}  {name}\n" for name in files_of(folder)]
    (folder / SUMS).write_text("".join(lines))


def check_checksums(folder: Path, only: Collection[str] | None = None) -> None:
    """Compares the files of a release with their checksums.

    Args:
        folder: the release.
        only: files, and folders with all that is in them, to look at; None for the whole release.

    Raises:
        UserError: naming the first file that is missing, differs or was added, or if there is no
            list.
    """
    sums = read_checksums(folder)

    def is_meant(name: str) -> bool:
        return only is None or name in only or any(name.startswith(f"{part}/") for part in only)

    for name in sorted({*filter(is_meant, sums), *filter(is_meant, files_of(folder))}):
        if not (folder / name).is_file():
            raise UserError(f"{folder / name} is missing, though {SUMS} lists it")
        if name not in sums:
            raise UserError(f"{folder / name} is no part of the release: {SUMS} does not list it")
        if sha256_file(folder / name) != sums[name]:
            raise UserError(f"{folder / name} is damaged: its checksum is not that in {SUMS}")


def read_checksums(folder: Path) -> dict[str, str]:
    """File -> its checksum.

    Raises:
        UserError: there is no list, or one that names something outside of the folder.
    """
    path = folder / SUMS
    if not path.is_file():
        raise UserError(f"{folder} holds no {SUMS}: it is no whole release")
    sums = {}
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        match = re.fullmatch(r"([0-9a-f]{64})  (\S.*)", line)
        name = PurePosixPath(match[2] if match else "..")
        if match is None or name.is_absolute() or ".." in name.parts:
            raise UserError(f"{path} is damaged: line {number} is no checksum of a file in it")
        sums[match[2]] = match[1]
    return sums


def files_of(folder: Path) -> list[str]:
    """All files by their relative paths, but the list itself and hidden ones.

    Those are of the tools that carry a release about (`.git`, `.gitattributes`, `.cache`).
    """
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    shown = (name for name in names if not any(part.startswith(".") for part in name.parts))
    return sorted({name.as_posix() for name in shown} - {SUMS})
