"""``python -m pretrain preflight``: what would stop a run, told before its GPUs are burnt.

Every rank takes part. The first of each node looks at the node: shared memory that dead jobs have
left (it is removed), room for checkpoints, caches and loader workers, shards that are there and can
be read. Then all ranks meet in an all-reduce.
"""

import os
import random
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from recaption.common.config import UserError, check_at_least, load_config, print_json

if TYPE_CHECKING:
    from pretrain.config import PretrainConfig
    from pretrain.distributed.ranks import Ranks

USAGE = """usage: srun python -m pretrain preflight CONFIG.yaml [key=value ...]

The arguments are those of `pretrain train`. Each thing that is wrong is one line, and the status 2.
--json prints the figures in the last line."""

#: In fp32: the weights as trained and as released, Adam's two moments, the optimiser's own copy.
_CHECKPOINT_BYTES_PER_PARAMETER = 5 * 4
_SHARED_MEMORY = Path("/dev/shm")
_GB = 1e9
_BLOCKING_WAIT = "TORCH_NCCL_BLOCKING_WAIT"


@dataclass
class PreflightConfig:
    num_free_checkpoints: int = 2  # for so many there must be room beside the run
    min_free_cache_gb: float = 1.0  # in the temporary folder, for locks and compiled kernels
    min_free_shared_gb: float = 0.5  # in /dev/shm, for batches on their way from loader workers
    num_read_shards: int = 4  # of which each node reads the first and the last sample
    all_reduce_mb: int = 16  # what the ranks add up
    all_reduce_timeout: float = 120.0  # seconds for all ranks to meet and add up

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            check_at_least(0, {f"preflight.{name}": value})
        check_at_least(1, {"preflight.all_reduce_mb": self.all_reduce_mb})


def main(argv: list[str]) -> None:
    from pretrain.config import PretrainConfig
    from pretrain.distributed.launch import announce_rank

    config = load_config(PretrainConfig, argv, USAGE)
    announce_rank()
    problems = [str(error) for error in find_problems(config)] if _is_first_of_node() else []
    for problem in problems:
        print(f"error: {_node()}: {problem}", file=sys.stderr, flush=True)
    with _met_ranks(config.preflight.all_reduce_timeout) as ranks:
        seconds = _time_all_reduce(ranks, config.preflight.all_reduce_mb)
        if ranks.any(bool(problems)):
            raise UserError("the pre-flight failed on a node: its line above says why")
        if ranks.is_first:
            megabytes = config.preflight.all_reduce_mb
            rate = megabytes * 1e6 / seconds / _GB
            print(
                f"pre-flight: {ranks.world_size} ranks added up {megabytes} MB "
                f"in {seconds * 1000:.0f} ms ({rate:.2f} GB/s); shards and disks are well",
                flush=True,
            )
            print_json(argv, {"num_ranks": ranks.world_size, "all_reduce_gb_per_s": rate})


def find_problems(config: "PretrainConfig") -> Iterator[str]:
    """What is wrong on this node, one line each, with what to do about it."""
    from pretrain.distributed.leftovers import remove_leftovers, remove_locks

    removed = remove_leftovers(_SHARED_MEMORY)
    if removed:
        print(f"{_node()}: removed {len(removed)} leftovers in {_SHARED_MEMORY}")
    temporary = Path(tempfile.gettempdir())
    if "SLURM_JOB_ID" in os.environ:
        remove_locks(temporary)  # the folder is this job's own
    limits = config.preflight
    yield from _lack_of_space(temporary, limits.min_free_cache_gb, "set TMPDIR to another disk")
    if _SHARED_MEMORY.is_dir():
        hint = "stop what fills it, or give the container more (--shm-size)"
        yield from _lack_of_space(_SHARED_MEMORY, limits.min_free_shared_gb, hint)
    needed = limits.num_free_checkpoints * checkpoint_bytes(config) / _GB
    hint = f"{limits.num_free_checkpoints} checkpoints must fit: free some, or give another run="
    yield from _lack_of_space(Path(config.run), needed, hint)
    try:
        read_some_shards(Path(config.data.train), limits.num_read_shards)
    except UserError as error:
        yield str(error)


def checkpoint_bytes(config: "PretrainConfig") -> int:
    """What a checkpoint of the run takes on disk, by its parameters; none is allocated."""
    import torch

    from pretrain.models.count import num_parameters
    from pretrain.models.registry import build_model
    from pretrain.objectives.registry import build_objective

    with torch.device("meta"):
        model = build_model(config.model)
        objective = build_objective(config.objective, config.model.embed_dim)
    return _CHECKPOINT_BYTES_PER_PARAMETER * (num_parameters(model) + num_parameters(objective))


def read_some_shards(folder: Path, num_shards: int) -> None:
    """Reads ends of some shards, other ones on each node. Raises: UserError: one cannot be read."""
    from streaming.base.format import reader_from_json

    from pretrain.data.checks import check_shards

    shards = check_shards(folder)
    choice = random.Random(_node())
    for shard in choice.sample(shards, min(num_shards, len(shards))):
        name = shard["raw_data"]["basename"]
        try:
            reader = reader_from_json(str(folder), None, shard)
            for position in (0, reader.size - 1):
                reader[position]
        except Exception as error:  # whatever the library makes of bytes that are not a sample
            raise UserError(
                f"{folder / name} cannot be read ({error!r}): copy or pack the shards again"
            ) from None


def _lack_of_space(folder: Path, needed_gb: float, hint: str) -> Iterator[str]:
    """Whether files can be written below ``folder``, which need not exist, and are so large."""
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        yield f"{folder} cannot be written to ({error.strerror}): {hint}"
        return
    free_gb = shutil.disk_usage(folder).free / _GB
    if free_gb < needed_gb:
        yield f"{folder} has {free_gb:.2f} GB free of {needed_gb:.2f} GB needed: {hint}"


def _node() -> str:
    return os.environ.get("SLURMD_NODENAME", socket.gethostname())


def _is_first_of_node() -> bool:
    return os.environ["LOCAL_RANK"] == "0"


def _time_all_reduce(ranks: "Ranks", megabytes: int) -> float:
    """Seconds for an all-reduce over all ranks, the second of two; the first one connects."""
    import torch
    from torch import distributed as dist

    ones = torch.ones(megabytes * 250_000, device=ranks.device)
    for _ in range(2):
        ones.fill_(1.0)
        started = time.perf_counter()
        dist.all_reduce(ones)
        total = ones.sum().item()  # waits for the device
        seconds = time.perf_counter() - started
    if total != ranks.world_size * ones.numel():
        raise UserError(
            f"an all-reduce of ones over {ranks.world_size} ranks gave {total / ones.numel():.3f} "
            "each: the network or a GPU is faulty; leave the node out (sbatch --exclude)"
        )
    return seconds


@contextmanager
def _met_ranks(timeout: float) -> Iterator["Ranks"]:
    """All ranks in a group. Raises: UserError: they do not find each other in time."""
    from pretrain.distributed.ranks import RanksConfig, joined_ranks

    # Otherwise a collective of NCCL that takes too long ends the process without a word of ours.
    # Not in the training that may follow in this process: there the host must not wait.
    given = os.environ.get(_BLOCKING_WAIT)
    os.environ.setdefault(_BLOCKING_WAIT, "1")
    try:
        with joined_ranks(RanksConfig(timeout, heartbeat_timeout=0)) as ranks:
            yield ranks
    except RuntimeError as error:
        rank, world_size = os.environ["RANK"], os.environ["WORLD_SIZE"]
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise UserError(
            f"rank {rank} of {world_size} on {_node()} could not meet the others "
            f"within {timeout:.0f} s (at {address}; {reason}): look at that node's "
            "network, unset MASTER_ADDR if it is an old one, or raise preflight.all_reduce_timeout"
        ) from None
    finally:
        if given is None:
            del os.environ[_BLOCKING_WAIT]
