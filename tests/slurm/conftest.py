"""A cluster and an uninterrupted run on it, which the interrupted ones must equal."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pretrain.trainruns import TINY, write_training_shards
from tests.slurm.cluster import Cluster, running_cluster, why_no_cluster
from tests.slurm.jobs import LAST_STEP, submit

REASON = why_no_cluster()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if REASON is not None:
        pytest.skip(REASON)
    with running_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    shards = write_training_shards(folder / "shards", 240)
    path = folder / "tiny.yaml"
    path.write_text(TINY.replace("data: {", f"data: {{train: {shards}, "))
    with path.open("a") as file:
        file.write(f"train: {{num_steps: {LAST_STEP}, log_every: 1, checkpoint_every: 12}}\n")
        file.write("preflight: {all_reduce_mb: 1}\n")
    return path


@pytest.fixture(scope="session")
def whole_run(cluster: Cluster, config: Path) -> Path:
    """An uninterrupted run on both nodes."""
    run = config.parent / "whole"
    job = submit(cluster, config, run)
    assert cluster.wait(job) == "COMPLETED", cluster.job_log(job)
    return run
