"""The group of processes that train together: one a GPU, or one alone."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed as dist

from pretrain.distributed.launch import announce_rank
from pretrain.distributed.watchdog import watched_ranks
from recaption.common.config import ConfigError, UserError, check_at_least


@dataclass
class RanksConfig:
    # seconds in one collective after which a rank gives up on the others, and its job is started
    # again: for a rank that hangs while its process lives; saving a checkpoint must fit
    collective_timeout: float = 600.0
    # seconds without a sign of life after which a rank is given up: its node vanished, or its
    # process was stopped (one that was killed is noticed at once); 0: never
    heartbeat_timeout: float = 45.0

    def __post_init__(self) -> None:
        if self.collective_timeout <= 0:
            raise ConfigError(f"ranks.collective_timeout={self.collective_timeout}: more than 0")
        check_at_least(0, {"ranks.heartbeat_timeout": self.heartbeat_timeout})


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
def joined_ranks(config: RanksConfig | None = None) -> Iterator[Ranks]:
    """Joins the group that torchrun or Slurm announced, or makes one of this process alone.

    Raises:
        UserError: the environment contradicts itself, or there are more ranks than GPUs.
    """
    config = config or RanksConfig()
    announce_rank()
    local_rank = int(os.environ["LOCAL_RANK"])
    device = _device(local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # read when deepspeed is imported
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        timeout=timedelta(seconds=config.collective_timeout),
    )
    rank, world_size = dist.get_rank(), dist.get_world_size()
    try:
        with watched_ranks(rank, world_size, config.heartbeat_timeout, config.collective_timeout):
            yield Ranks(rank, local_rank, world_size, device)
    finally:
        dist.destroy_process_group()
        _forget_groups()


def _forget_groups() -> None:
    """DeepSpeed keeps its copy of the group, over which a second training would stumble."""
    groups = sys.modules.get("deepspeed.utils.groups")
    if groups is not None:
        vars(groups)["_WORLD_GROUP"] = None


def _device(local_rank: int) -> torch.device:
    """The rank's own GPU: the one that Slurm shows to it alone, or its turn among the node's."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    num_gpus = torch.cuda.device_count()
    num_ranks = int(os.environ["LOCAL_WORLD_SIZE"])
    if 1 < num_gpus < num_ranks:
        raise UserError(
            f"{num_ranks} ranks on a node of {num_gpus} GPUs: start one a GPU "
            "(srun --ntasks-per-node, torchrun --nproc-per-node)"
        )
    return torch.device("cuda", local_rank if num_gpus > 1 else 0)
