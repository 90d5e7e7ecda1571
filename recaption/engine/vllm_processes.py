"""The processes of vLLM's engine: how much memory they take, and how they end."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing.process import BaseProcess

import psutil

from recaption.common.processes import end_with_parent

#: Seconds that the kernel may take to end a process that was killed.
KILL_TIMEOUT = 10.0
#: Set by a worker for the processes that its engine starts.
OF_A_WORKER = "RECAPTION_ENGINE_OF_A_WORKER"


class EngineProcesses:
    """Keeps an eye on the processes that are started within ``watch``."""

    def __init__(self) -> None:
        self._started: list[BaseProcess] = []
        self.all: list[psutil.Process] = []

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """The block starts an engine; nothing else may start processes meanwhile."""
        before = set(multiprocessing.active_children())
        os.environ[OF_A_WORKER] = "1"
        try:
            yield
        finally:
            self._started = [p for p in multiprocessing.active_children() if p not in before]
            self.all = []
            for process in self._started:
                with contextlib.suppress(psutil.NoSuchProcess):
                    core = psutil.Process(process.pid)
                    self.all += [core, *core.children(recursive=True)]

    def kill(self) -> None:
        """Ends all of them at once: those, too, whose parent is gone, or which hang."""
        for process in self.all:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()  # psutil knows a process from a later one of the same number
        for started in self._started:
            started.join(KILL_TIMEOUT)
        self._started, self.all = [], []


def memory_of_all(top: psutil.Process | None = None) -> float:
    """GiB of host memory of a process and all below it; what they share counts once.

    Args:
        top: the process; None: this one.
    """
    top = top or psutil.Process()
    num_bytes = 0
    for process in (top, *top.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            num_bytes += process.memory_full_info().pss
    return num_bytes / 2**30


def end_with_worker() -> None:
    """What vLLM calls in each of its processes (its plugins, see pyproject.toml).

    Those of a worker's engine end when the worker does, even by kill -9, and leave it to the
    worker what becomes of Ctrl-C. In all others, such as `vllm serve`, nothing changes.
    """
    parent = multiprocessing.parent_process()
    if os.environ.get(OF_A_WORKER) != "1" or parent is None:
        return
    if threading.current_thread() is threading.main_thread():
        # The kernel's word is about the thread that started this process: there, too, the main one
        end_with_parent(parent.pid)
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C and SIGTERM end a block that keeps the event loop waiting for minutes.

    As soon as Python's code runs: while vLLM waits for its processes they wait, too.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
