"""Paths of somebody's machine, which have no place in what is published."""

import re
from pathlib import Path

from pretrain.checksums import files_of

_TEXT = {".md", ".json", ".txt", ".yaml", ".yml", ""}
#: Not the paths of web addresses, which are left out first.
_WEB = re.compile(r"https?://[^\s\"'<>,;|]+")
#: Backslashes are doubled in JSON.
_PATH = re.compile(
    r"""
    (?:file|ssh|sftp|nfs|smb|hdfs|s3a?|gs|gcs|abfss?|wasbs?|oss)://\S+  # elsewhere, or a bucket
    | (?<![\w.-])[\w.-]+@[\w.-]+:[\w./~]\S*  # USER@HOST:PATH
    | (?<![\w/.<~])/(?:[\w.+@%-]+/)+[\w.+@%*-]+  # from the root, of at least two names
    | (?<!\w)~(?:[A-Za-z][\w-]*)?/[\w./+-]+  # in somebody's home
    | \b[A-Za-z]:(?:\\{1,2}|/(?!/))\w[\w\\./-]*  # of a drive
    | (?<!\\)(?:\\{4}\w[\w.-]*\\{2}|\\{2}\w[\w.-]*\\(?!\\))\w[\w$.\\-]*  # of a host: \\HOST\SHARE
    """,
    re.VERBOSE,
)


def private_paths(folder: Path) -> list[str]:
    """``FILE, line N: PATH`` of each path that the texts of a folder name."""
    found = []
    for name in files_of(folder):
        if Path(name).suffix not in _TEXT:
            continue
        lines = (folder / name).read_text(errors="replace").splitlines()
        for number, line in enumerate(lines, 1):
            found += [
                f"{name}, line {number}: {match[0]}" for match in _PATH.finditer(_WEB.sub("", line))
            ]
    return found
