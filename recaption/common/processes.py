"""Processes that do not outlive the one that started them."""

import ctypes
import os
import signal

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
