"""Work of an evaluation that several ranks share: started by torchrun or srun, as a training is.

What is encoded and scored together is the same whatever the number of ranks, so that the figures
are the same, too: images go to ranks by whole tiles of scores, texts by whole batches.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch import distributed as dist

from pretrain.distributed.ranks import RanksConfig, joined_ranks
from pretrain.models.features import TextFeatures

#: Seconds: what ranks do not share the first one does alone, and the others wait for it.
_PATIENCE = 24 * 3600.0


@contextmanager
def shared_by_ranks() -> Iterator[None]:
    """Joins the other ranks, if there are any, and leaves when all of them have come to the end."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    with joined_ranks(RanksConfig(collective_timeout=_PATIENCE)) as ranks:
        yield
        ranks.barrier()


def rank_and_size() -> tuple[int, int]:
    """This rank and the number of ranks; 0 and 1 for a process alone."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def is_first() -> bool:
    """Whether this rank prints and writes."""
    return rank_and_size()[0] == 0


def own_items(num_items: int, size: int, rank: int, world_size: int) -> list[int]:
    """Positions that are a rank's, in their order: every `world_size`-th block of `size` items."""
    return [item for item in range(num_items) if item // size % world_size == rank]


def join_texts(batches: list[TextFeatures]) -> TextFeatures:
    """All features on every rank, from the batches that each rank encoded, dealt out in turn."""
    _, world_size = rank_and_size()
    if world_size == 1:
        return TextFeatures.concatenate(batches)
    device = None
    mine = []
    for batch in batches:
        device = next(iter(batch))[1].device
        mine.append(batch.to("cpu"))
    dealt: list[list[TextFeatures]] = [[] for _ in range(world_size)]
    dist.all_gather_object(dealt, mine)
    num_batches = sum(map(len, dealt))
    ordered = [dealt[number % world_size][number // world_size] for number in range(num_batches)]
    return TextFeatures.concatenate(ordered).to(device or _device())


def join_rows(rows: dict[str, Tensor], num_rows: int, size: int) -> dict[str, Tensor]:
    """On the first rank the rows of all, in their order; nothing on the others.

    Args:
        rows: (n, M) by name, the rows that are this rank's (`own_items` with the same `size`).
        num_rows: of all ranks.
    """
    rank, world_size = rank_and_size()
    if world_size == 1:
        return rows
    described = [[(name, matrix.shape[1]) for name, matrix in rows.items()]]
    dist.broadcast_object_list(described, src=0)  # a rank without rows knows no names
    joined: dict[str, Tensor] = {}
    for name, width in described[0]:
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
