"""One training at a time in a run folder."""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pretrain.distributed.launch import is_slurm_step
from recaption.common.errors import UserError

LOCK = ".lock"


@contextmanager
def alone_in(run: Path) -> Iterator[None]:
    """Keeps other trainings out of ``run`` while the block lasts. The lock goes with its process,
    however that ends, and processes that it has forked do not hold it.

    Nothing is locked in a step of Slurm, which starts a job's next attempt when the one before has
    ended, or its node has vanished without giving a lock back; nor where the disk knows no locks.

    Raises:
        UserError: another process trains in it.
    """
    if is_slurm_step():
        yield
        return
    run.mkdir(parents=True, exist_ok=True)
    path = run / LOCK
    with path.open("a+b", buffering=0) as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                file.seek(0)
                other = file.read().decode() or "another process"
                raise UserError(
                    f"{run}: {other} trains in it: wait for it, or end it (if there is none any "
                    f"more, delete {path})"
                ) from None
        yield
