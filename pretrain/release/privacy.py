"""Paths of somebody's machine, which have no place in what is published."""

import re
from pathlib import Path

from pretrain.checksums import files_of

_TEXT = {".md", ".json", ".txt", ".yaml", ".yml", ""}
#: A path from the root of at least two names, or in somebody's home, or in a bucket; not the path
#: within a web address.
_PATH = re.compile(
    r"(?<![\w:/.<~])/(?:[\w.+@-]+/)+[\w.+@*-]*|~/[\w./+-]+|\b[A-Z]:\\\\?\w[\w\\.-]*|\b(?:s3|gs)://\S+"
)


def private_paths(folder: Path) -> list[str]:
    """``FILE, line N: PATH`` of each path that the texts of a folder name."""
    found = []
    for name in files_of(folder):
        if Path(name).suffix not in _TEXT:
            continue
        lines = (folder / name).read_text(errors="replace").splitlines()
        for number, line in enumerate(lines, 1):
            found += [f"{name}, line {number}: {match[0]}" for match in _PATH.finditer(line)]
    return found
