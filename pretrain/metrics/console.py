"""The line that people read."""

import time
from collections.abc import Callable, Mapping

from recaption.common.progress import format_seconds


class Console:
    """Tells a row in one line, at most every ``every`` steps and at the last one.

    The time left goes by all steps of this attempt but those before the first row, which start
    loaders and warm up kernels.

    Args:
        num_steps: of the whole run.
        first_step: steps that were done before this attempt.
        every: steps between two lines; 0: a line with every row.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        num_steps: int,
        first_step: int,
        every: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._num_steps = num_steps
        self._every = every
        self._clock = clock
        self._printed_step = first_step
        self._since = (first_step, clock())
        self._is_first = True

    def seconds_left(self, step: int) -> float:
        """Seconds from ``step``, which was done just now, to the run's last one.

        Call it once a row, in order.
        """
        since_step, since = self._since
        now = self._clock()
        if self._is_first:
            self._since, self._is_first = (step, now), False
        return (self._num_steps - step) * (now - since) / (step - since_step)

    def is_due(self, step: int) -> bool:
        return step - self._printed_step >= self._every or step == self._num_steps

    def print(self, row: Mapping[str, float]) -> None:
        self._printed_step = int(row["step"])
        print(describe(row, self._num_steps), flush=True)


def describe(row: Mapping[str, float], num_steps: int) -> str:
    """`step 20/300  loss 2.1046  51.3 images/s  waiting for data 0.4 %  9m06s left`"""
    return (
        f"step {row['step']:,}/{num_steps:,}  loss {row['loss']:.4f}  "
        f"{row['samples_per_second']:,.1f} images/s  "
        f"waiting for data {100 * row['data_wait_share']:.1f} %  "
        f"{format_seconds(row['left_seconds'])} left"
    )


def describe_validation(step: int, figures: Mapping[str, float]) -> str:
    """`validation after step 20  text to image R@1 29.8 % R@5 55.0 % R@10 67.2 %  image to ...`"""
    ways = [
        f"{name} " + " ".join(f"R@{k} {100 * figures[f'{way}_r{k}']:.1f} %" for k in (1, 5, 10))
        for name, way in (("text to image", "t2i"), ("image to text", "i2t"))
    ]
    return (
        f"validation after step {step:,}  {'  '.join(ways)}  loss {figures['loss']:.4f}  "
        f"({figures['num_images']:,.0f} images)"
    )
