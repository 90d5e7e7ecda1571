"""A fast way of computing something against a plain one, in turns."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Turns:
    """Medians: seconds of either way, and how many times as long the plain one took in a turn."""

    seconds: float
    plain_seconds: float
    ratio: float


def take_turns(fast: Callable[[], Tensor], plain: Callable[[], Tensor], num_turns: int) -> Turns:
    """Times both ways after one pass that warms them up.

    Raises:
        AssertionError: they do not give the same numbers.
    """
    torch.testing.assert_close(fast(), plain(), rtol=1e-3, atol=1e-4)
    turns = [(_seconds(fast), _seconds(plain)) for _ in range(num_turns)]
    return Turns(
        statistics.median(ours for ours, _ in turns),
        statistics.median(theirs for _, theirs in turns),
        statistics.median(theirs / ours for ours, theirs in turns),
    )


def now() -> float:
    """Seconds, when all that was asked of the device is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _seconds(function: Callable[[], object]) -> float:
    started = now()
    function()
    return now() - started
