"""Work of an evaluation that several ranks share: started by torchrun or srun, as a training is.

What is encoded and scored together is the same whatever the number of ranks, so that the figures
are the same, too: images go to ranks by whole tiles of scores, texts by whole batches.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from pretrain.distributed.launch import EXIT_LOST_RANK, announced_world_size
from pretrain.distributed.ranks import RanksConfig, joined_ranks
from pretrain.models.features import TextFeatures

T = TypeVar("T")
#: Seconds: the first rank alone sums up, writes and draws, and the others wait for it.
_PATIENCE = 24 * 3600.0


@contextmanager
def shared_by_ranks() -> Iterator[None]:
    """Joins the other ranks, if there are any, and leaves when all of them have come to the end.

    Raises:
        SystemExit: another rank ended early; it has said why.
    """
    if announced_world_size() == 1:
        yield
        return
    with joined_ranks(RanksConfig(collective_timeout=_PATIENCE)) as ranks:
        try:
            yield
            ranks.barrier()
        except RuntimeError as error:
            # Gloo's errors have no class of their own.
            if not isinstance(error, dist.DistError) and "gloo" not in str(error):
                raise
            line = f"rank {ranks.rank} ends, as another one did: its own line tells why"
            print(line, file=sys.stderr)
            raise SystemExit(EXIT_LOST_RANK) from None


def rank_and_size() -> tuple[int, int]:
    """This rank and the number of ranks; 0 and 1 for a process alone."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def is_first() -> bool:
    """Whether this rank prints and writes."""
    return rank_and_size()[0] == 0


def of_first(value: T) -> T:
    """The first rank's value, on every rank."""
    if rank_and_size()[1] == 1:
        return value
    shared = [value]
    dist.broadcast_object_list(shared, src=0)
    return shared[0]


def own_items(num_items: int, size: int, rank: int, world_size: int) -> list[int]:
    """Positions that are a rank's, in their order: every `world_size`-th block of `size` items."""
    return [item for item in range(num_items) if item // size % world_size == rank]


def join_blocks(own: list[T]) -> list[T]:
    """What every rank made of its blocks (`own_items`), on every rank, in the order of the items.

    Args:
        own: one result a block, picklable, tensors on the CPU.
    """
    _, world_size = rank_and_size()
    if world_size == 1:
        return own
    dealt: list[list[T]] = [[] for _ in range(world_size)]
    dist.all_gather_object(dealt, own)
    num_blocks = sum(map(len, dealt))
    return [dealt[number % world_size][number // world_size] for number in range(num_blocks)]


def join_texts(batches: list[TextFeatures]) -> TextFeatures:
    """All features on every rank, from the batches that each rank encoded."""
    if rank_and_size()[1] == 1:
        return TextFeatures.concatenate(batches)
    device = next(iter(batches[0]))[1].device if batches else _device()
    return TextFeatures.concatenate(join_blocks([b.to("cpu") for b in batches])).to(device)


def join_tensors(batches: list[Tensor]) -> Tensor:
    """All rows on every rank, from the batches of rows that each rank made."""
    if rank_and_size()[1] == 1:
        return torch.cat(batches)
    device = batches[0].device if batches else _device()
    return torch.cat(join_blocks([batch.cpu() for batch in batches])).to(device)


def join_rows(rows: dict[str, Tensor], num_rows: int, size: int) -> dict[str, Tensor]:
    """On the first rank the rows of all, in their order; nothing on the others.

    Args:
        rows: (n, M) by name, the rows that are this rank's (`own_items` with the same `size`).
        num_rows: of all ranks.
    """
    rank, world_size = rank_and_size()
    if world_size == 1:
        return rows
    # A rank without rows knows no names.
    described = of_first([(name, matrix.shape[1]) for name, matrix in rows.items()])
    joined: dict[str, Tensor] = {}
    for name, width in described:
        if rank != 0:
            if name in rows:
                dist.send(rows[name].to(_device()).contiguous(), dst=0)
            continue
        joined[name] = torch.empty(num_rows, width)
        joined[name][own_items(num_rows, size, 0, world_size)] = rows[name]
        for other in range(1, world_size):
            places = own_items(num_rows, size, other, world_size)
            if places:
                received = torch.empty(len(places), width, device=_device())
                dist.recv(received, src=other)
                joined[name][places] = received.cpu()
    return joined


def _device() -> torch.device:
    """Where the group's messages are: NCCL's on the GPU."""
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
