"""Who this process is among the others: one process a GPU, or one alone."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed as dist

_COLLECTIVE_TIMEOUT = timedelta(minutes=10)
_ALONE = {
    "RANK": "0",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "1",
    "LOCAL_WORLD_SIZE": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "0",
}


@dataclass(frozen=True)
class Ranks:
    rank: int
    local_rank: int
    world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """Whether ``flag`` is set on any rank; every rank gets the same answer."""
        votes = torch.tensor(int(flag), device=self.device)
        dist.all_reduce(votes, dist.ReduceOp.MAX)
        return bool(votes.item())

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """Each value's mean over the ranks; all ranks must give the same names."""
        stacked = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        dist.all_reduce(stacked)
        return dict(zip(values, (stacked / self.world_size).tolist(), strict=True))

    def barrier(self) -> None:
        dist.barrier()


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """Joins the process group that torchrun announced, or makes one of this process alone."""
    if "RANK" not in os.environ:
        os.environ.update(_ALONE)
    has_gpu = torch.cuda.is_available()
    local_rank = int(os.environ["LOCAL_RANK"])
    device = torch.device("cuda", local_rank) if has_gpu else torch.device("cpu")
    if has_gpu:
        torch.cuda.set_device(device)
    else:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # read when deepspeed is imported
    dist.init_process_group("nccl" if has_gpu else "gloo", timeout=_COLLECTIVE_TIMEOUT)
    try:
        yield Ranks(dist.get_rank(), local_rank, dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()
