"""Pictures made ready by threads while the encoders are at work on the batch before."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def read_ahead(
    items: Sequence[T], prepare: Callable[[T], R], batch_size: int, num_threads: int = 4
) -> Iterator[list[R]]:
    """`prepare` of all items in order, in lists of `batch_size`; two lists are kept ahead.

    Decoding and resizing leave Python's lock. The first error of `prepare` is raised in its turn.
    """
    waiting: deque[Future[R]] = deque()
    remaining = iter(items)
    with ThreadPoolExecutor(num_threads) as pool:
        try:
            while True:
                room = 3 * batch_size - len(waiting)
                waiting.extend(pool.submit(prepare, item) for item in islice(remaining, room))
                if not waiting:
                    return
                some = min(batch_size, len(waiting))
                yield [waiting.popleft().result() for _ in range(some)]
        finally:
            pool.shutdown(cancel_futures=True)
