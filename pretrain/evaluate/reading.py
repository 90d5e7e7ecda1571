"""Pictures read and prepared ahead of the encoder, by threads: decoding lets others run."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from PIL import Image
from torch import Tensor

from pretrain.evaluate.benchmarks.base import Picture

_AHEAD = 4  # pictures in work a thread


def read_ahead(
    pictures: Sequence[Picture], preprocess: Callable[[Image.Image], Tensor]
) -> Iterator[Tensor]:
    """What `preprocess` makes of each picture, in their order.

    Raises:
        UserError: a picture cannot be opened.
    """

    def prepare(picture: Picture) -> Tensor:
        return preprocess(picture.open())

    num_threads = min(os.cpu_count() or 1, 16)
    waiting: deque[Future[Tensor]] = deque()
    with ThreadPoolExecutor(num_threads) as pool:
        try:
            for picture in pictures:
                waiting.append(pool.submit(prepare, picture))
                if len(waiting) >= num_threads * _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
