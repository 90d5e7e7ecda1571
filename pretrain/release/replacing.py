"""The place of a release: only another release gives way, and some whole one is always there."""

import os
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pretrain.checksums import SUMS, read_checksums
from pretrain.inference import RELEASE_CONFIG
from pretrain.release.facts import FACTS
from recaption.common.config import UserError
from recaption.common.files import sha256_file


@contextmanager
def folder_in_place_of(output: Path) -> Iterator[Path]:
    """Yields a folder that becomes `output` when the block succeeds, and is gone when it fails.

    What a killed process has left of the same release is removed first, or put back.

    Args:
        output: resolved; nothing, an empty folder, or a release, which is then removed.

    Raises:
        UserError: as `check_replaceable`, at the start and again before anything is replaced.
    """
    _clear_leftovers(output)
    check_replaceable(output)
    aside = _beside(output, "tmp")
    try:
        aside.mkdir(parents=True)
        yield aside
        check_replaceable(output)  # writing it took its time
        put_in_place(aside, output)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


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


def put_in_place(new: Path, output: Path) -> None:
    """Gives a folder its name. Whatever fails, one whole release is there under some name."""
    if not output.exists():
        new.rename(output)
        return
    old = _beside(output, "old")
    try:
        output.rename(old)
        new.rename(output)
    except BaseException:  # Ctrl-C, too
        if old.exists() and not output.exists():
            old.rename(output)
        raise
    try:
        shutil.rmtree(old)
    except OSError as error:
        print(f"warning: the former release stays in {old}: {error}", file=sys.stderr)


def _all_in(folder: Path) -> Iterator[Path]:
    """Files, folders, links and whatever else, hidden or not; links are not followed."""

    def fail(error: OSError) -> None:
        raise error

    for place, folders, files in os.walk(folder, onerror=fail):
        for name in sorted([*folders, *files]):
            yield Path(place) / name


def _clear_leftovers(output: Path) -> None:
    """Puts back the release that was set aside when its replacement was killed, removes others."""
    kinds = re.compile(rf"{re.escape(f'.{output.name}.')}(tmp|old)-(.+)-(\d+)")
    beside = sorted(output.parent.iterdir()) if output.parent.is_dir() else []
    for path in beside:
        match = kinds.fullmatch(path.name)
        if match is None:
            continue
        kind, host, process = match[1], match[2], int(match[3])
        if host != socket.gethostname():
            print(
                f"warning: {path} was left by process {process} of {host}: if that does not run "
                "any more, remove it",
                file=sys.stderr,
            )
        elif not _is_running(process):
            if kind == "old" and not output.exists():
                path.rename(output)
            else:
                shutil.rmtree(path)


def _is_running(process: int) -> bool:
    """Another process of this number: this one has left nothing yet."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _beside(output: Path, kind: str) -> Path:
    return output.with_name(f".{output.name}.{kind}-{socket.gethostname()}-{os.getpid()}")
