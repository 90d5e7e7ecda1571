"""Bytes that a rank sends: pretended ranks, and what would go out over the network."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def all_reduce_bytes(size: float, world_size: int) -> float:
    """Sent by each rank where `size` bytes are summed round a ring: reduced, then gathered."""
    return 2 * all_gather_bytes(size, world_size)


def all_gather_bytes(size: float, world_size: int) -> float:
    """Sent by each rank where `size` bytes in all are gathered, or reduced and scattered."""
    return size * (world_size - 1) / world_size


class Traffic(TorchDispatchMode):
    """Counts the bytes that this rank sends in collectives, by their ring algorithms."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = 0.0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func.namespace == "c10d":
            self.sent += _sent_bytes(func._schema.name.removeprefix("c10d::"), args)
        return func(*args, **(kwargs or {}))


def _sent_bytes(name: str, args: tuple[Any, ...]) -> float:
    world_size = dist.get_world_size()
    if name in ("recv_", "barrier"):
        return 0
    if name in ("send", "broadcast_"):
        return _size(args[0])
    if name == "allreduce_":
        return all_reduce_bytes(_size(args[0]), world_size)
    if name in ("_allgather_base_", "allgather_", "allgather_into_tensor_coalesced_"):
        return all_gather_bytes(_size(args[0]), world_size)  # of what comes out
    if name in ("_reduce_scatter_base_", "reduce_scatter_", "reduce_scatter_tensor_coalesced_"):
        return all_gather_bytes(_size(args[1]), world_size)  # of what goes in
    raise NotImplementedError(f"how many bytes a rank sends in c10d::{name} is not known here")


def _size(tensors: Any) -> int:
    return sum(t.numel() * t.element_size() for t in tree_leaves(tensors) if isinstance(t, Tensor))


@contextmanager
def pretended_ranks(world_size: int) -> Iterator[None]:
    """This process as the first of many ranks, of which there are no others.

    Collectives return at once and leave what they receive as it is.
    """
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=world_size)
    try:
        yield
    finally:
        dist.destroy_process_group()
