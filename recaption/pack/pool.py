"""Tasks in several processes, which end with their parent, and their progress in one line."""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from PIL import Image

from recaption.common.config import UserError
from recaption.common.progress import Progress

Task = TypeVar("Task")
Result = TypeVar("Result")

#: Seconds between two looks at the counters.
INTERVAL = 0.2
#: Done, found and bytes found: what all processes have counted together.
_counters: Any = None


def add_progress(num_done: int = 0, num_found: int = 0, num_bytes_found: int = 0) -> None:
    """Called by a task: images done, and images found in so many bytes of the input."""
    if _counters is not None:
        with _counters.get_lock():
            for number, count in enumerate((num_done, num_found, num_bytes_found)):
                _counters[number] += count


def run_tasks(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    num_processes: int,
    label: str,
    num_bytes: int = 0,
    num_images: int | None = None,
) -> Iterator[Result]:
    """``function`` of each task, in the order in which they finish.

    Args:
        num_processes: 1 does the work in this process.
        num_bytes: of all tasks; with what was found in how many, it gives the number of images.
        num_images: of all tasks, where it is known.

    Raises:
        UserError: as ``function``, or a process was killed.
    """
    num_processes = min(num_processes, len(tasks))
    context = multiprocessing.get_context("spawn")
    with _counting(context, label, num_bytes, num_images):
        if num_processes <= 1:
            yield from map(function, tasks)
            return
        alive_there, alive = context.Pipe(duplex=False)
        pool = ProcessPoolExecutor(
            num_processes, context, initializer=_start, initargs=(alive_there, _counters)
        )
        try:
            for future in as_completed([pool.submit(function, task) for task in tasks]):
                yield future.result()
        except BrokenProcessPool:
            raise UserError(
                "a process of pack was killed, perhaps for want of memory: run the same again, "
                f"with a smaller num_processes than {num_processes} or a smaller bucket_size"
            ) from None
        except BaseException:
            alive.close()  # what still runs is not waited for
            raise
        finally:
            pool.shutdown(cancel_futures=True)
            alive.close()
            alive_there.close()


@contextlib.contextmanager
def _counting(context: Any, label: str, num_bytes: int, num_images: int | None) -> Iterator[None]:
    """Shows what ``add_progress`` counts, here or in other processes."""
    global _counters
    _counters = counters = context.Array(ctypes.c_int64, 3)
    is_over = threading.Event()

    def show() -> None:
        num_done, num_found, num_bytes_found = counters[:]
        if num_bytes_found:
            progress.total = max(round(num_found * num_bytes / num_bytes_found), num_found)
        progress.advance(num_done - progress.done)

    def watch() -> None:
        while not is_over.wait(INTERVAL):
            show()

    with Progress(num_images, "images", label) as progress:
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            is_over.set()
            watcher.join()
            show()
            _counters = None


def _start(alive: Connection, counters: Any) -> None:
    """In a new process. It ends at once when its parent is gone, whatever it is doing."""
    global _counters
    _counters = counters
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent, too
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)

    def end_with_parent() -> None:
        alive.poll(None)
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
