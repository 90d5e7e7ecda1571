"""``sbatch slurm/pretrain_vitl.sh`` on real daemons: one node of two ranks."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pretrain.metrics import read_metrics
from tests.places import CHECKOUT
from tests.pretrain.trainruns import TINY, write_training_shards
from tests.slurm.cluster import Cluster, running_cluster, why_no_cluster

pytestmark = pytest.mark.skipif(why_no_cluster() is not None, reason=str(why_no_cluster()))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    shards = write_training_shards(folder / "shards", 40)
    path = folder / "tiny.yaml"
    path.write_text(TINY.replace("data: {", f"data: {{train: {shards}, "))
    return path


def submit(cluster: Cluster, log: Path, *arguments: str) -> str:
    cluster.environment |= {
        "PYTHON": sys.executable,
        "MASTER_ADDR": "127.0.0.1",  # the nodes' names are known to Slurm only
        "OMP_NUM_THREADS": "1",
        "RANKS_PER_NODE": "2",
    }
    return cluster.run(
        *("sbatch", "--parsable", "--nodes=1", "--gpus-per-node=0"),
        *(f"--chdir={CHECKOUT}", f"--output={log}", "slurm/pretrain_vitl.sh", *arguments),
    )


def test_a_job_trains_stops_when_told_and_goes_on(
    cluster: Cluster, config: Path, tmp_path: Path
) -> None:
    run, log = tmp_path / "run", tmp_path / "job.log"
    command = [str(config), f"run={run}", "engine.precision=fp32", "train.log_every=1"]
    command += ["train.checkpoint_every=1000"]
    job = submit(cluster, log, *command, "train.num_steps=100000")
    metrics = run / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and len(read_metrics(metrics)) >= 5):
        assert time.monotonic() < deadline, log.read_text() if log.exists() else cluster.log()
        time.sleep(0.5)
    cluster.run("scancel", "--signal=TERM", job)
    cluster.wait(job)
    assert "stopped by" in log.read_text()
    (checkpoint,) = (run / "checkpoints").glob("step-*/COMPLETE")
    state = json.loads((checkpoint.parent / "state.json").read_text())
    assert state["num_ranks"] == 2

    last = state["step"] + 3
    job = submit(cluster, log, *command, f"train.num_steps={last}")
    assert cluster.wait(job) == "COMPLETED", log.read_text()
    assert (run / "checkpoints" / f"step-{last:08d}" / "COMPLETE").exists()
    assert read_metrics(metrics)[-1]["num_samples_seen"] == last * 2 * 4
    assert f"resumed after step {state['step']}" in log.read_text()
