"""Cores left to the threads that compute, where vLLM runs on the CPU.

vLLM binds each thread that computes to a core of its own, and leaves at least one core to the
rest: its scheduler, which never sleeps, this process and those that decode. Yet it does not keep
the rest off the cores that it bound; whatever runs there for a moment makes all threads that
compute wait (`tools.bench_recaption`: 8 % fewer images a second on two cores).
"""

import contextlib
import os
from collections.abc import Iterable

import psutil


class Cores:
    """Where this process may run: everywhere, or off the cores that an engine has bound."""

    def __init__(self) -> None:
        self._allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()

    def take_back(self) -> None:
        """Lets this thread, and what it starts, run on all cores again: an engine is to start."""
        if self._allowed:
            os.sched_setaffinity(0, self._allowed)

    def leave(self, engine: Iterable[psutil.Process]) -> set[int]:
        """Moves this process, and all below it, off the cores that an engine is bound to.

        Args:
            engine: its processes.

        Returns:
            The cores that are left; none if nothing was moved, as no thread is bound to any, or
            all cores are.
        """
        bound = {core for process in engine for core in _bound(process, self._allowed)}
        rest = self._allowed - bound
        if not bound or not rest:
            return set()
        this = psutil.Process()
        for process in (this, *this.children(recursive=True)):
            for thread in _threads(process):
                with contextlib.suppress(OSError):  # it has ended
                    if os.sched_getaffinity(thread) == self._allowed:
                        os.sched_setaffinity(thread, rest)
        return rest


def _bound(process: psutil.Process, allowed: set[int]) -> set[int]:
    bound: set[int] = set()
    for thread in _threads(process):
        with contextlib.suppress(OSError):
            cores = os.sched_getaffinity(thread)
            if cores < allowed:
                bound |= cores
    return bound


def _threads(process: psutil.Process) -> list[int]:
    try:
        return [thread.id for thread in process.threads()]
    except psutil.NoSuchProcess:
        return []
