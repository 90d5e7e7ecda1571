"""What a release may take the place of: only another one."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from pretrain.checkpoint import WEIGHTS
from pretrain.checksums import SUMS, read_checksums
from pretrain.inference import RELEASE_CONFIG
from pretrain.release.facts import FACTS, Facts
from pretrain.release.placing import written_aside
from recaption.common.config import UserError
from recaption.common.files import read_json, sha256_file


def folder_in_place_of(output: Path, facts: Facts | None = None) -> AbstractContextManager[Path]:
    """A folder that takes the place of nothing, of an empty folder, or of a release.

    It is that of `written_aside`.

    Args:
        output: its name.
        facts: of the new release, where only one of the same weights may be replaced.

    Raises:
        UserError: as `check_replaceable`, or the release there is of other weights.
    """

    def check(folder: Path) -> None:
        check_replaceable(folder)
        if facts is not None and (folder / FACTS).is_file():
            _check_same_weights(folder, facts)

    return written_aside(output, check)


def _check_same_weights(output: Path, facts: Facts) -> None:
    """Names are rounded, so that two steps may have the same."""
    if read_checksums(output).get(WEIGHTS) == facts.weights["sha256"]:
        return
    there = read_json(output / FACTS).get("training", {}).get("step")
    raise UserError(
        f"{output} holds other weights, those of step {there}, and step {facts.training.step} "
        "would have the same name: give name= or output= (which is replaced), or remove it first"
    )


def check_replaceable(output: Path) -> None:
    """Nothing may be lost with a folder but the files that a release has put there.

    Raises:
        UserError: naming what no release has put there, or what was changed since.
    """
    here, output = Path.cwd(), output.resolve()
    if output == here or output in here.parents:
        raise UserError(f"{output} is where you are, and cannot be replaced: call from elsewhere")
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not all((output / name).is_file() for name in (SUMS, RELEASE_CONFIG, FACTS)):
        raise UserError(f"{output} is there and is no release: give another folder")
    sums = read_checksums(output)
    for path in _all_in(output):
        name = path.relative_to(output).as_posix()
        if path.is_dir() and not path.is_symlink():
            is_known = any(listed.startswith(f"{name}/") for listed in sums)
        else:
            is_known = name in {*sums, SUMS} and path.is_file() and not path.is_symlink()
        if not is_known:
            raise UserError(f"{path} is no part of the release there: move it first")
        if name in sums and sha256_file(path) != sums[name]:
            raise UserError(f"{path} was changed since it was released: move it first")


def _all_in(folder: Path) -> Iterator[Path]:
    """Files, folders, links and whatever else, hidden or not; links are not followed."""

    def fail(error: OSError) -> None:
        raise error

    for place, folders, files in os.walk(folder, onerror=fail):
        for name in sorted([*folders, *files]):
            yield Path(place) / name
