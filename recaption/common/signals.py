"""How a command is told to stop, and how it says that work is left.

Slurm's warning ahead of the time limit, SIGUSR1 or SIGUSR2, goes to every process of a job. Those
that decode, and the engine's, must not die of it: this process decides what they still do.
"""

import os
import signal
import stat
import sys
import threading
from types import FrameType

#: What Slurm can be told to send (`sbatch --signal=USR1@300`).
WARNINGS = {signal.SIGUSR1, signal.SIGUSR2}
#: A job that was stopped and has work left ends with this, `EX_TEMPFAIL` of sysexits.h:
#: `slurm/lib.sh` sends it back to the queue.
EXIT_UNFINISHED = 75


def take_warnings_as_sigterm() -> None:
    """Has `WARNINGS` stop this process as SIGTERM does, and leave those alone that it starts.

    To be called by the main thread: a signal that a thread blocks is blocked, too, in the threads
    and processes that it starts, whatever program they run.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, WARNINGS)
    threading.Thread(target=_wait_for_warning, name="signals", daemon=True).start()
    for number in WARNINGS:  # threads that a library has started before do not block it
        signal.signal(number, _stop)


def leave_terminal() -> None:
    """To be called at SIGHUP: what this process still says goes nowhere, unless that is a file.

    The terminal is gone, and what a pipe led to is ending, too: to write there would be an error,
    in the midst of saving.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _wait_for_warning() -> None:
    _stop(signal.sigwait(WARNINGS))


def _stop(number: int, frame: FrameType | None = None) -> None:
    print(f"stopping at {signal.Signals(number).name}", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
