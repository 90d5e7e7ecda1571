"""Starts gloo processes of one script, and gathers what each of them returns."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tests.daemons import free_ports
from tests.places import CHECKOUT


def launch(script: str, folder: Path, world_size: int) -> list[Any]:
    """Runs `script` on so many ranks; it must call `run_rank` when it is started by itself."""
    (port,) = free_ports(1)
    command = [sys.executable, script, str(folder), str(world_size), str(port)]
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    processes = [
        subprocess.Popen([*command, str(rank)], env=environment) for rank in range(world_size)
    ]
    assert [process.wait(timeout=300) for process in processes] == [0] * world_size
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(world_size)]


def run_rank(results: Callable[[int, int], Any]) -> None:
    """One of the processes: saves `results(rank, world_size)`."""
    folder, world_size, port, rank = Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    dist.init_process_group("gloo", rank=int(rank), world_size=world_size)
    torch.save(results(int(rank), world_size), folder / f"{rank}.pt")
    dist.destroy_process_group()
