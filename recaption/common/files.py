"""Files that are whole or absent."""

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recaption.common.errors import UserError


@contextlib.contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yields a temporary path beside ``path``; renames it to ``path`` when the block succeeds.

    The content is synced to disk before the rename, so that a name which exists always has its
    content behind it. When the block fails, nothing is left.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Forces a file's content, or a folder's list of names, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def permit_as_folder(folder: Path) -> None:
    """Lets those who may read or write a folder do so with the files in it, at any depth.

    A folder just made has what the umask lets; safetensors writes files that their owner alone may
    read.
    """
    permitted = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(stat.S_IMODE(path.stat().st_mode) | permitted)


def below_home(path: Path | str) -> Path:
    """``~/x`` -> x below the user's home; any other path as it is, also one of ``~x``.

    For what no shell has expanded: they leave alone what stands behind ``=``.
    """
    path = Path(path)
    return path.expanduser() if path.parts[:1] == ("~",) else path


def read_json(path: Path) -> Any:
    """Raises: UserError: the file is not JSON."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is damaged: it is not JSON ({error})") from None


def sha256_file(path: Path | str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_samples(path: Path | str, num_samples: int = 32, sample_bytes: int = 2**20) -> str:
    """A hash of a large file's size and of pieces spread evenly over it, its ends included."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        digest.update(str(size).encode())
        for number in range(num_samples):
            file.seek(max(size - sample_bytes, 0) * number // (num_samples - 1))
            digest.update(file.read(sample_bytes))
    return digest.hexdigest()
