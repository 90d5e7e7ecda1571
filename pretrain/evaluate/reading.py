"""Pictures read and prepared ahead of the encoder, by threads: decoding lets others run."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from PIL import Image
from torch import Tensor

from pretrain.distributed.launch import is_slurm_step
from pretrain.evaluate.benchmarks.base import Picture

T = TypeVar("T")
R = TypeVar("R")
_AHEAD = 4  # pictures in work a thread
_MOST_THREADS = 16


def read_ahead(
    pictures: Sequence[Picture], preprocess: Callable[[Image.Image], Tensor]
) -> Iterator[Tensor]:
    """What `preprocess` makes of each picture, in their order.

    Raises:
        UserError: a picture cannot be opened.
    """
    return prepare_ahead(pictures, lambda picture: preprocess(picture.open()))


def prepare_ahead(
    items: Sequence[T], prepare: Callable[[T], R], ahead: int = _AHEAD
) -> Iterator[R]:
    """`prepare` of each item, in their order; an error of it is raised in its turn.

    Args:
        ahead: items in work a thread: what is prepared stays in memory until its turn.
    """
    num_threads = own_threads()
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(num_threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(prepare, item))
                if len(waiting) >= num_threads * ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def own_threads() -> int:
    """As many as CPUs are this rank's: torchrun lets all ranks of a node share them, `srun` and
    affinities give them out."""
    num_cpus = len(os.sched_getaffinity(0))
    if not is_slurm_step():
        num_cpus //= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(max(num_cpus, 1), _MOST_THREADS)
