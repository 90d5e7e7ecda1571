"""A Python that finds nothing but some distributions and this package."""

import subprocess
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

from tests.places import CHECKOUT


def make_environment(folder: Path, *roots: str) -> list[str]:
    """Fills `folder` with links to the distributions `roots`, all that they require, and ours.

    Returns:
        the names of the distributions.
    """
    folder.mkdir()
    found: dict[str, Distribution] = {}
    wanted = list(roots)
    while wanted:
        name = wanted.pop().lower().replace("_", "-")
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:  # for another platform
            assert name not in roots
            continue
        requirements = map(Requirement, found[name].requires or [])
        wanted += [r.name for r in requirements if r.marker is None or r.marker.evaluate()]
    for installed in found.values():
        for file in installed.files or []:
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (folder / top).exists():
                (folder / top).symlink_to(Path(str(installed.locate_file(top))))
    for package in ("pretrain", "recaption"):
        (folder / package).symlink_to(CHECKOUT / package)
    return sorted(found)


def run_closed(folder: Path, program: str) -> subprocess.CompletedProcess[str]:
    """Runs a program with Python's own library and that folder, and nothing else, to import.

    `-I` and `-S`: neither the checkout, nor the environment's packages, nor variables of Python.
    """
    program = f"import sys; sys.path.append({str(folder)!r})\n{program}"
    command = [sys.executable, "-I", "-S", "-c", program]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder)
