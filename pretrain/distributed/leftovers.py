"""Shared memory that killed jobs have left on this node, and the job's own temporary folders.

    srun --ntasks-per-node=1 python -m pretrain.distributed.leftovers

A killed process unlinks nothing: mosaicml-streaming's segments stay in /dev/shm until the node is
full, or until a later run takes them for its own. What a living process has mapped is never
touched, whoever's it is, so that jobs may share a node. No torch is imported here.
"""

import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

from pretrain.distributed.launch import job_folder_names

#: Names that mosaicml-streaming (`000000_locals`) and torch (`torch_PID_...`) give.
_NAMES = re.compile(r"\d{6}_[a-z_]+|torch_\d+_\w+")
_LOCKS = re.compile(r"\d{6}_[a-z]+_filelock")
#: Between its creation and its mapping a segment looks left over.
_YOUNGEST_SECONDS = 1.0


def remove_leftovers(shared_memory: Path = Path("/dev/shm")) -> list[str]:
    """Unlinks this user's segments that no process has mapped; returns their names."""
    removed = []
    looked = time.time()  # what is made from here on may be missing in the maps read below
    mapped = _mapped_files()
    for path in sorted(shared_memory.iterdir()) if shared_memory.is_dir() else []:
        if not _NAMES.fullmatch(path.name):
            continue
        try:
            status = path.lstat()
            age = looked - status.st_ctime
            is_live = (status.st_dev, status.st_ino) in mapped or age < _YOUNGEST_SECONDS
            if status.st_uid == os.geteuid() and not is_live:
                path.unlink()
                removed.append(path.name)
        except FileNotFoundError:
            continue  # its owner was quicker
    return removed


def remove_locks(folder: Path) -> None:
    """Lock files that a killed attempt of this job has left in its own folder."""
    for path in folder.iterdir():
        if _LOCKS.fullmatch(path.name):
            path.unlink(missing_ok=True)


def remove_job_folders(base: Path) -> None:
    """The temporary folders of this attempt of the job and of those before, not of later ones."""
    for name in job_folder_names():
        shutil.rmtree(base / name, ignore_errors=True)


def _mapped_files() -> set[tuple[int, int]]:
    """Device and inode of every file that a process whose maps we may read has mapped.

    By inode and not by name: another mount of /dev/shm, as containers have, holds the same names.
    """
    files = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            lines = maps.read_text().splitlines()
        except OSError:  # it has ended, or is another user's, whose segments we leave alone anyway
            continue
        for line in lines:
            _, _, _, device, inode, *_ = line.split(maxsplit=5)
            if inode != "0":
                major, minor = (int(part, 16) for part in device.split(":"))
                files.add((os.makedev(major, minor), int(inode)))
    return files


def main() -> None:
    removed = remove_leftovers()
    if removed:
        print(f"removed {len(removed)} segments of shared memory that dead processes had left")
    if "--job-folder" in sys.argv[1:]:
        remove_job_folders(Path(tempfile.gettempdir()))


if __name__ == "__main__":
    main()
