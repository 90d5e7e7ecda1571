"""A folder that is there whole or not at all, whoever kills what writes it."""

import os
import re
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from recaption.common.config import UserError


@contextmanager
def written_aside(output: Path, check: Callable[[Path], None]) -> Iterator[Path]:
    """Yields a folder that becomes `output` when the block succeeds, and is gone when it fails.

    What a killed process has left of the same folder is removed first, or put back.

    Args:
        output: a link is followed.
        check: raises where `output` must not be written or replaced. It is called at the start, and
            again at the end, as writing may take its time.
    """
    output = output.resolve()
    _clear_leftovers(output)
    check(output)
    aside = _beside(output, "tmp")
    try:
        aside.mkdir(parents=True)
        yield aside
        check(output)
        put_in_place(aside, output)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """As `written_aside`, where nothing is replaced.

    Raises:
        UserError: `output` is there already.
    """
    with written_aside(output, check_absent) as aside:
        yield aside


def check_absent(output: Path) -> None:
    """Raises: UserError: `output` is there already."""
    if output.exists():
        raise UserError(f"{output} is there already: give another folder")


def put_in_place(new: Path, output: Path) -> None:
    """Gives a folder its name. Whatever fails, one whole folder is there under some name."""
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
        print(f"warning: the former folder stays in {old}: {error}", file=sys.stderr)


def _clear_leftovers(output: Path) -> None:
    """Puts back the folder that was set aside when its replacement was killed, removes others."""
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
