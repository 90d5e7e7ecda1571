"""``sbatch slurm/recaption.sh``: an array of workers on two real nodes, killed and sent back."""

import os
import subprocess
from pathlib import Path

import pytest

from recaption.table import read_stats
from tests.places import CHECKOUT
from tests.slurm.captions import (
    NUM_IMAGES,
    NUM_SHARDS,
    assert_all_captioned,
    busy_worker,
    logs,
    num_processed,
    submit_array,
    write_slow_shards,
)
from tests.slurm.cluster import Cluster


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slow_shards(tmp_path_factory.mktemp("shards"))


def test_an_array_shares_the_tars(cluster: Cluster, shards: Path, tmp_path: Path) -> None:
    tables = tmp_path / "tables"
    for job in submit_array(cluster, shards, tables):
        assert cluster.wait(job) == "COMPLETED", logs(tables)
    assert_all_captioned(tables, shards)
    attempts = [read_stats(tables, path.stem) for path in shards.glob("*.tar")]
    assert all(stats is not None and stats.num_attempts == 1 for stats in attempts)
    assert num_processed(tables) == NUM_SHARDS * NUM_IMAGES, "each image once, by one worker"
    assert "on n1," in logs(tables) and "on n2," in logs(tables)
    assert "left to the workers that have them" in logs(tables), "no worker waits for the others"


def test_killed_and_signalled_workers_come_back(
    cluster: Cluster, shards: Path, tmp_path: Path
) -> None:
    tables = tmp_path / "tables"
    killed, signalled, left_alone = jobs = submit_array(cluster, shards, tables)
    busy_worker(tables, "0").kill()
    busy_worker(tables, "1")
    cluster.run("scancel", "--signal=USR1", signalled)
    for job in jobs:
        assert cluster.wait(job) == "COMPLETED", logs(tables)
    assert_all_captioned(tables, shards)
    log = Path(f"{tables}-0.log").read_text()
    assert "(crash 1 in a row)" in log
    assert f"attempt 2 of job {killed}" in log
    log = Path(f"{tables}-1.log").read_text()
    assert "stopping at SIGUSR1" in log
    assert "stopped; the job goes on from here later" in log
    assert "crash" not in log and "died" not in log, "those that decode are spared"
    assert f"attempt 2 of job {signalled}" in log
    assert f"attempt 2 of job {left_alone}" not in Path(f"{tables}-2.log").read_text()


def test_a_mistake_ends_the_jobs(cluster: Cluster, shards: Path, tmp_path: Path) -> None:
    tables = tmp_path / "tables"
    (job,) = submit_array(cluster, shards, tables, "engine.nam=vllm", num_workers=1)
    assert cluster.wait(job) == "FAILED"
    assert logs(tables).count("did you mean 'engine.name'?") == 1
    assert "back to the queue" not in logs(tables)


@pytest.mark.parametrize(
    ("gpus", "cpus", "arguments"),
    [
        ("", "1", "num_decode_processes=1"),
        ("1", "12", "num_decode_processes=10"),
        ("4", "40", "num_decode_processes=35 engine.vllm.kwargs.tensor_parallel_size=4"),
    ],
)
def test_a_worker_fits_its_job(gpus: str, cpus: str, arguments: str) -> None:
    environment = {"PYTHON": "echo", "SLURM_GPUS_ON_NODE": gpus, "SLURM_CPUS_PER_TASK": cpus}
    command = ["bash", "-euc", 'source slurm/lib.sh && run_worker "$@"', "worker", "output=a b"]
    done = subprocess.run(
        command, cwd=CHECKOUT, env=os.environ | environment, capture_output=True, text=True
    )
    assert done.stdout == f"-m recaption run wait_for_others=false {arguments} output=a b\n"
