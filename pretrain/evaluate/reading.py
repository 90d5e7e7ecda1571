"""Pictures read and prepared ahead of the encoder, by threads: decoding lets others run."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from PIL import Image
from torch import Tensor

from pretrain.evaluate.benchmarks.base import Picture

T = TypeVar("T")
R = TypeVar("R")
_AHEAD = 4  # pictures in work a thread


def read_ahead(
    pictures: Sequence[Picture], preprocess: Callable[[Image.Image], Tensor]
) -> Iterator[Tensor]:
    """What `preprocess` makes of each picture, in their order.

    Raises:
        UserError: a picture cannot be opened.
    """
    return prepare_ahead(pictures, lambda picture: preprocess(picture.open()))


def prepare_ahead(items: Sequence[T], prepare: Callable[[T], R]) -> Iterator[R]:
    """`prepare` of each item, in their order; an error of it is raised in its turn."""
    num_threads = min(os.cpu_count() or 1, 16)
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(num_threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(prepare, item))
                if len(waiting) >= num_threads * _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
