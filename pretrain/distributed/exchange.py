"""Features travel between ranks, and sums over all ranks travel back.

Nothing here is recorded by autograd: who sends features round the ring sends their gradients home
by it too, so that memory does not grow with the number of ranks (`pretrain.objectives.ring`).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

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

    @classmethod
    def alone(cls) -> Self:
        """This rank by itself, however many there are: nothing is sent."""
        exchange = cls()
        exchange.rank, exchange.world_size = 0, 1
        return exchange

    def ring(self, *tensors: Tensor) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
        """Passes chunks round a ring: each rank sends to the right and receives from the left.

        The next chunk travels while the caller works on the one before. Two buffers take turns, so
        a chunk must not be kept beyond its turn, nor written to.

        Args:
            tensors: what a chunk consists of, on every rank alike.

        Returns:
            Iterator of (rank the chunk comes from, its tensors), the own ones first, W in all.
        """
        chunk = [x.detach().contiguous() for x in tensors]
        rounds = self.world_size - 1
        buffers = [[torch.empty_like(x) for x in chunk] for _ in range(2)] if rounds else []
        for distance in range(self.world_size):
            following, requests = chunk, []
            if distance < rounds:
                following = buffers[distance % 2]
                requests = self._start_shift(chunk, following)
            yield (self.rank - distance) % self.world_size, tuple(chunk)
            with self.waiting():
                for request in requests:
                    request.wait()
            chunk = following

    def waiting(self) -> AbstractContextManager[None]:
        """A block in which this rank waits for others."""
        return nullcontext() if self._stopwatch is None else self._stopwatch.watch("communicate")

    def homeward(self, combine: Callable[..., Tensor] = torch.add) -> "Homeward":
        """For what the ranks find out about each chunk of a ring, and its rank is to know.

        Args:
            combine: of two ranks' results, with `out=` (torch.add, torch.logaddexp).
        """
        return Homeward(self, combine)

    def _start_shift(self, sent: Sequence[Tensor], received: Sequence[Tensor]) -> list[Any]:
        """Starts sending to the right and receiving from the left; `wait` for each request."""
        left, right = ((self.rank + step) % self.world_size for step in (-1, 1))
        operations = [dist.P2POp(dist.isend, x, self._global(right), self.group) for x in sent]
        operations += [dist.P2POp(dist.irecv, x, self._global(left), self.group) for x in received]
        requests: list[Any] = dist.batch_isend_irecv(operations)
        return requests

    def _global(self, rank: int) -> int:
        return dist.get_global_rank(self.group, rank) if self.group is not None else rank


class Homeward:
    """Results that follow the chunks of a ring from rank to rank, and arrive at the chunks' own.

    A rank adds its part to what the ranks before found out about the same chunk. That travels while
    the chunk itself, which is there already, is worked on.
    """

    def __init__(self, exchange: Exchange, combine: Callable[..., Tensor]) -> None:
        self._exchange, self._combine = exchange, combine
        self._sent: Tensor | None = None
        self._received: Tensor | None = None
        self._requests: list[Any] = []

    def add(self, part: Tensor) -> None:
        """Adds this rank's part for a chunk, in the order of the ring; takes `part` over."""
        if self._received is not None:
            self._wait()
            part = self._combine(part, self._received, out=part)
        if self._exchange.world_size > 1:
            self._received = torch.empty_like(part) if self._received is None else self._received
            self._requests = self._exchange._start_shift([part], [self._received])
        self._sent = part

    def collect(self) -> Tensor:
        """All ranks' parts for this rank's own chunk, after the last `add`."""
        self._wait()
        home = self._sent if self._received is None else self._received
        assert home is not None
        return home

    def _wait(self) -> None:
        with self._exchange.waiting():
            for request in self._requests:
                request.wait()
        self._requests = []
