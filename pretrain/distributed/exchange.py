"""Features travel between ranks, and their gradients travel back.

Both ways of exchange give each rank d(sum of all ranks' losses)/d(own features): what a rank does
with another rank's features counts towards the gradients of the rank that made them. Data-parallel
averaging of the parameter gradients then yields the gradient of the mean of the ranks' losses.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pretrain.metrics.stopwatch import Stopwatch


class Exchange:
    """Exchange of features over the ranks of a process group; a single process keeps to itself.

    Every rank must make the same calls in the same order, with tensors of the same shape.

    Args:
        group: the process group; None stands for all ranks, or for a single process where
            `torch.distributed` was not initialised.
        stopwatch: told of the time that this rank waits for others.
    """

    def __init__(
        self, group: dist.ProcessGroup | None = None, stopwatch: Stopwatch | None = None
    ) -> None:
        self.group = group
        self._stopwatch = stopwatch
        initialised = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank(group) if initialised else 0
        self.world_size = dist.get_world_size(group) if initialised else 1

    def gather(self, x: Tensor) -> Tensor:
        """(B, ...) of each rank -> (W*B, ...) of all, in rank order, with gradients."""
        if self.world_size == 1:
            return x
        gathered: Tensor = _Gather.apply(x, self)
        return gathered

    def ring(self, x: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Passes chunks round a ring: each rank sends to the right and receives from the left.

        Only one chunk is in flight, and it travels while the caller works on the one before.

        Returns:
            Iterator of (rank the chunk comes from, chunk), the own one first, W in all. Gradients
            flow back the other way round.
        """
        chunk = x
        for distance in range(self.world_size):
            requests: list[Any] = []
            following = chunk
            if distance + 1 < self.world_size:
                following = _Shift.apply(chunk, self, requests)
            yield (self.rank - distance) % self.world_size, chunk
            with self.waiting():
                for request in requests:
                    request.wait()
            chunk = following

    def waiting(self) -> AbstractContextManager[None]:
        """A block in which this rank waits for others."""
        return nullcontext() if self._stopwatch is None else self._stopwatch.watch("communicate")

    def _start_shift(self, x: Tensor, step: int) -> tuple[Tensor, list[Any]]:
        """Starts sending `x` `step` ranks to the right and receiving from as far to the left."""
        received = torch.empty_like(x)
        to, source = (self._global((self.rank + sign * step) % self.world_size) for sign in (1, -1))
        operations = [
            dist.P2POp(dist.isend, x, to, self.group),
            dist.P2POp(dist.irecv, received, source, self.group),
        ]
        return received, dist.batch_isend_irecv(operations)

    def _global(self, rank: int) -> int:
        return dist.get_global_rank(self.group, rank) if self.group is not None else rank


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, exchange: Exchange) -> Tensor:  # type: ignore[override]
        ctx.exchange = exchange
        x = x.contiguous()
        gathered = x.new_empty(exchange.world_size * x.shape[0], *x.shape[1:])
        with exchange.waiting():
            dist.all_gather_single(gathered, x, group=exchange.group)
        return gathered

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        exchange: Exchange = ctx.exchange
        grad = grads[0].contiguous()
        own = grad.new_empty(grad.shape[0] // exchange.world_size, *grad.shape[1:])
        with exchange.waiting():
            dist.reduce_scatter_single(own, grad, group=exchange.group)
        return own, None


class _Shift(torch.autograd.Function):
    """One step round the ring. Forward returns before the data are there: `requests` tells when."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, exchange: Exchange, requests: list[Any]
    ) -> Tensor:
        ctx.exchange = exchange
        received, started = exchange._start_shift(x.contiguous(), step=1)
        requests.extend(started)
        return received

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        received, started = ctx.exchange._start_shift(grads[0].contiguous(), step=-1)
        with ctx.exchange.waiting():
            for request in started:
                request.wait()
        return received, None, None
