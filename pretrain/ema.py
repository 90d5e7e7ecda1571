"""A running mean of the weights, spread over the ranks."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch import distributed as dist

from pretrain.distributed.shards import Shards


class Ema:
    """Exponential moving average of all trained weights in fp32.

    The mean of a young run forgets faster, min(decay, (1 + n) / (10 + n)) after n updates, so that
    the random start is soon gone. With ZeRO 3 a rank keeps the mean of its pieces of the weights,
    else that of whole weights of its own choice, about as many numbers as every other rank.

    Args:
        shards: where the weights are.
        decay: share of the mean that an update keeps, below 1.
    """

    def __init__(self, shards: Shards, decay: float) -> None:
        self._shards, self._decay = shards, decay
        self._owners = _owners(shards)
        self._rank = dist.get_rank()
        self._means = {
            name: shards.piece(shards.trained[name]).clone()
            for name, owner in self._owners.items()
            if owner in (self._rank, None)
        }

    @torch.no_grad()
    def update(self, num_updates: int) -> None:
        """Behind the update number ``num_updates``, counted from 1."""
        decay = min(self._decay, (1 + num_updates) / (10 + num_updates))
        for name, mean in self._means.items():
            weight = self._shards.piece(self._shards.trained[name])
            mean.lerp_(weight.to(mean.dtype), 1 - decay)

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """(name, mean) of all weights; buffers as they are. Every rank must ask for all."""
        for name, weight in self._shards.weights():
            if name not in self._owners:
                yield name, weight
                continue
            owner = self._owners[name]
            if owner is None:
                yield name, self._shards.joined(self._shards.trained[name], self._means[name])
                continue
            mean = self._means[name] if owner == self._rank else torch.empty(weight.numel())
            mean = mean.to(weight.device)
            dist.broadcast(mean, src=owner)
            yield name, mean.view_as(weight)

    @torch.no_grad()
    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Takes on what `weights` gave, on any number of ranks."""
        for name, mean in self._means.items():
            parameter = self._shards.trained[name]
            mean.copy_(self._shards.piece_of(parameter, weights[name].to(mean.device)))


def _owners(shards: Shards) -> dict[str, int | None]:
    """The rank that keeps the mean of each weight; None: each keeps its piece."""
    if shards.stage == 3:
        return dict.fromkeys(shards.trained)
    sizes = {name: parameter.numel() for name, parameter in shards.trained.items()}
    return dict(spread(sizes, dist.get_world_size()))


def spread(sizes: Mapping[str, int], num_ranks: int) -> dict[str, int]:
    """The rank that each tensor goes to, so that all have about as many numbers."""
    held = [0] * num_ranks
    owners = {}
    for name, size in sorted(sizes.items(), key=lambda item: -item[1]):
        owner = held.index(min(held))
        owners[name] = owner
        held[owner] += size
    return owners
