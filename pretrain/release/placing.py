"""A folder that is there whole or not at all, whoever kills what writes it."""

import os
import re
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from recaption.common.config import UserError
from recaption.common.files import permit_as_folder


@contextmanager
def written_aside(
    output: Path, check: Callable[[Path], None], may_replace: bool = True
) -> Iterator[Path]:
    """Yields a folder that becomes `output` when the block succeeds, and is gone when it fails.

    Its files may be read by whom the umask lets, whatever wrote them. What a killed process has
    left of the same folder is removed first, or put back.

    Args:
        output: a link is followed.
        check: raises where `output` must not be written or replaced. It is called at the start, and
            again at the end, as writing may take its time.
        may_replace: False: an error where another has come, even between the check and the naming.
    """
    output = output.resolve()
    _clear_leftovers(output)
    check(output)
    aside = _beside(output, "tmp")
    try:
        aside.mkdir(parents=True)
        yield aside
        permit_as_folder(aside)
        check(output)
        (put_in_place if may_replace else _name_new)(aside, output)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """As `written_aside`, where nothing is replaced.

    Raises:
        UserError: `output` is there already.
    """
    with written_aside(output, check_absent, may_replace=False) as aside:
        yield aside


def check_absent(output: Path) -> None:
    """Raises: UserError: `output` is there already."""
    if output.exists():
        raise UserError(f"{output} is there already: give another folder")


def _name_new(new: Path, output: Path) -> None:
    """A folder that is not empty, or a file, is not replaced by the system."""
    try:
        new.rename(output)
    except OSError:
        check_absent(output)
        raise


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
        elif _is_running(process):
            if kind == "old" and not output.exists():
                print(
                    f"warning: {path} is what was in {output}, set aside by process {process}, "
                    "which runs: if that is another program by now, move it back",
                    file=sys.stderr,
                )
        elif kind == "old" and not output.exists():
            with suppress(FileNotFoundError):  # another command put it back
                path.rename(output)
        else:
            _remove(path)


def _remove(path: Path) -> None:
    """A folder or a file, which another command may be removing, too."""
    while path.exists():
        with suppress(FileNotFoundError):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


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
