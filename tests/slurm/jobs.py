"""Jobs of a tiny training, and what is looked for in them."""

import os
import sys
import time
from pathlib import Path

import psutil
import torch
from safetensors.torch import load_file

from pretrain.metrics import read_metrics
from tests.places import CHECKOUT
from tests.slurm.cluster import UNFINISHED, Cluster

LAST_STEP = 30
#: Where a run is interrupted: behind its first checkpoint, and before its second.
STEP_OF_INTERRUPTION = 14
#: Makes the steps from there on slow in a job's first attempt: no interruption comes too late.
SLOW = {
    "SLOW_FROM_STEP": str(STEP_OF_INTERRUPTION),
    "PYTHONPATH": str(CHECKOUT / "tests/pretrain/disturbed"),
}
ENVIRONMENT = {
    "PYTHON": sys.executable,
    "MASTER_ADDR": "127.0.0.1",  # the nodes' names are known to Slurm only
    "OMP_NUM_THREADS": "1",
}


def submit(
    cluster: Cluster, config: Path, run: Path, *overrides: str, nodes: int = 2, **environment: str
) -> str:
    """`sbatch slurm/pretrain_vitl.sh`; the job's log is `RUN-job.log`, its ranks' in `RUN-job/`."""
    given = ["env", *(f"{name}={value}" for name, value in (ENVIRONMENT | environment).items())]
    return cluster.run(
        *given,
        *("sbatch", "--parsable", f"--nodes={nodes}", "--gpus-per-node=0", f"--chdir={CHECKOUT}"),
        *(f"--output={run}-job.log", "slurm/pretrain_vitl.sh"),
        *(str(config), f"run={run}", *overrides),
    )


def wait_for_step(cluster: Cluster, job: str, run: Path, step: int) -> None:
    deadline = time.monotonic() + 300
    while not any(row["step"] >= step for row in read_metrics(run / "metrics.jsonl")):
        assert time.monotonic() < deadline, cluster.job_log(job)
        assert cluster.state(job) in UNFINISHED, cluster.job_log(job)
        time.sleep(0.1)


def rank_process(job: str, rank: int) -> psutil.Process:
    """The process of a rank, not one of its loader workers."""
    for process in psutil.process_iter(["pid", "cmdline"]):
        if (process.info["cmdline"] or [])[1:4] != ["-m", "pretrain", "train"]:
            continue
        environment = process.environ()
        of_rank = (environment.get("SLURM_JOB_ID"), environment.get("SLURM_PROCID"))
        parent = process.parent()
        if of_rank == (job, str(rank)) and parent and parent.name().startswith("slurmstepd"):
            return process
    raise AssertionError(f"no rank {rank} of job {job} on {os.uname().nodename}")


def assert_same_weights(run: Path, other: Path) -> None:
    """The last checkpoints' weights, bit by bit."""
    weights, expected = (
        load_file(folder / "checkpoints" / f"step-{LAST_STEP:08d}" / "model.safetensors")
        for folder in (run, other)
    )
    assert weights.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(weights[name], tensor), name
