"""Tars from anywhere, read by ``tarfile`` without trusting what their headers say."""

import tarfile
from pathlib import Path

BLOCK = tarfile.BLOCKSIZE
#: More zeros than any archiver pads a tar with: space for data that never arrived.
MAX_PADDING = 2**20
#: Headers of a member that hold a long name and the like; `tarfile` reads them into memory.
MAX_HEADER_BYTES = 2**20
HEADER_TYPES = (
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
)
#: What else is found under the name of a tar, by its first bytes.
COMPRESSIONS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\3\4": "zip",
}
#: Members that are no files of their own.
LINK_TYPES = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a named pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}


class BoundedTarInfo(tarfile.TarInfo):
    """Refuses what would fill the memory, or lead ``tarfile`` back to where it has been."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        if self.size < 0:
            raise tarfile.ReadError(f"a member of {self.size} bytes")
        if self.type in HEADER_TYPES and self.size > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        return super()._proc_member(tar)  # type: ignore[misc]


def name_compression(path: Path) -> str | None:
    """What compressed a file that ``tarfile`` cannot read; a plain tar begins with any name."""
    with path.open("rb") as file:
        head = file.read(8)
    return next((name for mark, name in COMPRESSIONS.items() if head.startswith(mark)), None)


def damage_at(path: Path, end: int, num_bytes: int) -> str | None:
    """``tarfile`` takes an early end or a broken header for the end; a whole tar ends in zeros."""
    with path.open("rb") as file:
        file.seek(end)
        block = file.read(BLOCK)
        if len(block) < BLOCK:
            return f"ends too early, at byte {num_bytes}"
        if block.strip(b"\0"):
            return f"unreadable header at byte {end}"
        while chunk := file.read(MAX_PADDING):
            if chunk.strip(b"\0"):
                return f"more data behind the end of the archive at byte {end}"
    if num_bytes - end > MAX_PADDING:
        return f"nothing but zeros from byte {end} to {num_bytes}"
    return None
