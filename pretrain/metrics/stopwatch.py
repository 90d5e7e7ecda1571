"""Where the wall time of a step goes."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: What time is attributed to: waiting for data, computing, waiting for other ranks, saving,
#: validating.
PARTS = ("data", "compute", "communicate", "save", "validate")


class Stopwatch:
    """Attributes the wall time of a window of steps to `PARTS`.

    Every moment belongs to the innermost part that is being watched, or to none, so that the
    shares never sum to more than 1; what is missing to 1 is the loop itself and whatever nobody
    watches.

    All times are of the host. On GPUs kernels and NCCL's collectives run behind it: the host's time
    in a part is that of giving orders, until something asks for a result. Waiting for the device
    then counts as the part that asks. On CPUs with gloo work is done when the call returns.

    "communicate" is what is watched as such: the blocking collectives of DeepSpeed, which reduce
    gradients and gather weights (`watch_collectives`), the gathers and the waits of the ring in
    `Exchange`, and the agreement of the ranks at the end of a step. It includes waiting for a
    slower rank. It does not include collectives that are under way behind computation, which cost
    nothing, nor the waits for those that DeepSpeed starts asynchronously.

    Threads may share one, as autograd's do with the thread that waits for them: the part that was
    entered last counts.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._open: list[tuple[object, str]] = []  # outermost first
        self._seconds = dict.fromkeys(PARTS, 0.0)
        self._started = self._attributed_to = clock()

    @contextmanager
    def watch(self, part: str) -> Iterator[None]:
        """Attributes the time of a block to ``part``, but for what is watched inside it.

        Raises:
            ValueError: there is no such part.
        """
        if part not in PARTS:
            raise ValueError(f"no part {part!r} of a step: choose among {', '.join(PARTS)}")
        entry = (object(), part)
        with self._lock:
            self._attribute()
            self._open.append(entry)
        try:
            yield
        finally:
            with self._lock:
                self._attribute()
                self._open.remove(entry)

    def elapsed(self) -> float:
        """Seconds since the last reset, attributed or not."""
        return self._clock() - self._started

    def shares(self) -> dict[str, float]:
        """Each part's share of the time since the last reset; 0 where no time has passed."""
        with self._lock:
            self._attribute()
            elapsed = self._attributed_to - self._started
            return {part: s / elapsed if elapsed else 0.0 for part, s in self._seconds.items()}

    def reset(self) -> None:
        """Begins a new window; what is being watched goes on in it."""
        with self._lock:
            self._started = self._attributed_to = self._clock()
            self._seconds = dict.fromkeys(PARTS, 0.0)

    def _attribute(self) -> None:
        now = self._clock()
        if self._open:
            self._seconds[self._open[-1][1]] += now - self._attributed_to
        self._attributed_to = now
