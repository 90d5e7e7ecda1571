"""The tars that are packed, local or remote, and a local copy of one while it is read."""

import contextlib
import fnmatch
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from recaption.common.config import UserError
from recaption.pack import remote
from recaption.shards import find_shards
from recaption.table import SourceFile


@dataclass(frozen=True)
class Tar:
    """An input tar. ``name`` is that of its caption tables."""

    path: str
    size: int
    mtime_ns: int

    @property
    def name(self) -> str:
        return Path(self.path).stem

    def is_same(self, source: SourceFile) -> bool:
        """Whether it is the file that ``source`` describes; a remote one by size and time."""
        if not remote.is_remote(self.path):
            return source.matches(Path(self.path))
        return asdict(source) | {"sha256": ""} == {
            "name": Path(self.path).name,
            "size": self.size,
            "mtime_ns": self.mtime_ns,
            "sha256": "",
        }


def find_tars(pattern: str) -> list[Tar]:
    """As ``recaption.shards.find_shards``, of remote folders and globs, too."""
    if not remote.is_remote(pattern):
        stats = [(path, path.stat()) for path in find_shards(pattern)]
        return [Tar(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in stats]
    folder, _, name = pattern.rstrip("/").rpartition("/")
    if not any(character in name for character in "*?["):
        file = remote.find_file(pattern)
        if file is not None:
            return [Tar(file.uri, file.size or 0, file.mtime_ns)]
        folder, name = pattern.rstrip("/"), "*.tar"
    files = [file for file in remote.list_files(folder) if file.size is not None]
    tars = [
        Tar(file.uri, file.size or 0, file.mtime_ns)
        for file in files
        if fnmatch.fnmatch(Path(file.uri).name, name)
    ]
    if not tars:
        raise UserError(f"no tar at {pattern}")
    return tars


@contextlib.contextmanager
def local_copy(tar: Tar, scratch: Path) -> Iterator[tuple[Path, SourceFile]]:
    """The tar's path, and what it is by size, time and content; a remote one is fetched."""
    if not remote.is_remote(tar.path):
        yield Path(tar.path), SourceFile.of(Path(tar.path))
        return
    path = scratch / Path(tar.path).name
    try:
        remote.download(tar.path, path)
        if path.stat().st_size != tar.size:
            raise UserError(f"{tar.path} has changed while it was packed: run the same again")
        yield path, replace(SourceFile.of(path), mtime_ns=tar.mtime_ns)
    finally:
        path.unlink(missing_ok=True)
