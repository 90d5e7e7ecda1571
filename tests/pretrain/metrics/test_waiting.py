"""Two real ranks, one of which keeps the other waiting."""

import os
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from pretrain.distributed.exchange import Exchange
from pretrain.metrics import Stopwatch
from pretrain.metrics.collectives import watch_collectives
from tests.pretrain.distributed.processes import launch, run_rank

LATE = 2.0  # seconds


def test_waiting_for_another_rank_is_communicating(tmp_path: Path) -> None:
    first, late = launch(__file__, tmp_path, 2)
    for case in ("ring", "deepspeed"):
        assert late[case] < LATE * 0.5 < first[case], case


def communicating(rank: int, stopwatch: Stopwatch, communicate: Any) -> float:
    """Seconds that were attributed to it, on a rank that may be late."""
    dist.barrier()
    stopwatch.reset()
    with stopwatch.watch("compute"):
        time.sleep(LATE * rank)
        communicate()
    return stopwatch.shares()["communicate"] * stopwatch.elapsed()


def results(rank: int, world_size: int) -> dict[str, float]:
    import deepspeed

    # As in the engine: it would be compiled for minutes.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    stopwatch = Stopwatch()
    exchange = Exchange(stopwatch=stopwatch)
    x = torch.ones(4)
    deepspeed.init_distributed("gloo", verbose=False)
    watch_collectives(stopwatch)
    found = {
        "ring": communicating(rank, stopwatch, lambda: list(exchange.ring(x))),
        "deepspeed": communicating(rank, stopwatch, lambda: deepspeed.comm.all_reduce(x)),
    }
    watch_collectives(Stopwatch())
    unheard = communicating(rank, stopwatch, lambda: deepspeed.comm.all_reduce(x))
    assert unheard == 0, "a second call replaces the stopwatch"
    return found


if __name__ == "__main__":
    os.environ["DS_ACCELERATOR"] = "cpu"
    run_rank(results)
