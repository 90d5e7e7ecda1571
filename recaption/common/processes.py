"""Processes that do not outlive the one that started them."""

import ctypes
import os
import signal
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # of linux/prctl.h


def end_with_parent(parent: int | None = None) -> None:
    """Has the kernel kill this process when its parent ends, however that ends (Linux only).

    Args:
        parent: the process that started this one, which may have ended since; by default the one
            that is the parent now.
    """
    parent = os.getppid() if parent is None else parent
    try:
        prctl = ctypes.CDLL(None).prctl
    except (AttributeError, OSError):
        return  # no Linux
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended just before
        os.kill(os.getpid(), signal.SIGKILL)


def process_start(number: int) -> int | None:
    """When a process was started, in ticks since the machine was; None if it does not run.

    With its number this names a process: numbers are given out again. One that has ended and was
    not waited for does not run (Linux only; elsewhere None).
    """
    try:
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    state, start = fields[0], int(fields[19])  # fields 3 and 22 of proc(5)
    return None if state in "ZX" else start
