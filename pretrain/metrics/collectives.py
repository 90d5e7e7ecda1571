"""The time that DeepSpeed's blocking collectives take: reduced gradients, gathered weights."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from pretrain.metrics.stopwatch import Stopwatch

#: Methods of DeepSpeed's backend that take part in a step.
COLLECTIVES = (
    "all_reduce",
    "all_reduce_coalesced",
    "reduce",
    "reduce_scatter",
    "reduce_scatter_tensor",
    "all_gather",
    "all_gather_into_tensor",
    "all_gather_coalesced",
    "broadcast",
    "barrier",
)


def watch_collectives(stopwatch: Stopwatch) -> None:
    """Attributes every collective that DeepSpeed makes from now on to "communicate".

    Only what the call itself takes: all of it where it blocks (gloo), the order alone where it
    returns at once (NCCL, or ``async_op``). Call it after `deepspeed.initialize`; a second call
    replaces the stopwatch.
    """
    from deepspeed.comm import comm  # imported late, as in the engine

    backend = comm.cdb
    for name in COLLECTIVES:
        # The class's own method, so that a second call does not watch twice.
        method = getattr(type(backend), name).__get__(backend)
        setattr(backend, name, _watched(method, stopwatch))


def _watched(method: Callable[..., Any], stopwatch: Stopwatch) -> Callable[..., Any]:
    @wraps(method)
    def watched(*args: Any, **kwargs: Any) -> Any:
        with stopwatch.watch("communicate"):
            return method(*args, **kwargs)

    return watched
