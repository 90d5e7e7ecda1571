"""``sbatch slurm/pretrain_vitl.sh`` on two real nodes, interrupted in every way that Slurm knows.

Whatever happens in between, the weights are those of a run that nothing happened to, bit by bit.
"""

import json
import re
import signal
from pathlib import Path

import pytest

from pretrain.metrics import read_metrics
from tests.slurm.cluster import Cluster
from tests.slurm.jobs import (
    LAST_STEP,
    SLOW,
    STEP_OF_INTERRUPTION,
    assert_same_weights,
    rank_process,
    submit,
    wait_for_step,
)


def test_a_job_trains_on_both_nodes_to_its_last_step(cluster: Cluster, whole_run: Path) -> None:
    state = json.loads(
        (whole_run / "checkpoints" / f"step-{LAST_STEP:08d}" / "state.json").read_text()
    )
    assert state["global_batch"] == 2 * 4
    assert read_metrics(whole_run / "metrics.jsonl")[-1]["num_samples_seen"] == LAST_STEP * 2 * 4
    log = Path(f"{whole_run}-job.log").read_text()
    assert "attempt 1 of job" in log
    assert "on n[1-2]" in log
    assert "pre-flight: 2 ranks added up 1 MB" in log
    assert f"trained to step {LAST_STEP}" in log
    ranks = sorted(path.name for path in Path(f"{whole_run}-job").iterdir())
    assert ranks == ["rank-0.log", "rank-1.log"]


def test_a_signal_ahead_of_the_time_limit_sends_the_job_back(
    cluster: Cluster, config: Path, whole_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    job = submit(cluster, config, run, **SLOW)
    wait_for_step(cluster, job, run, STEP_OF_INTERRUPTION)
    cluster.run("scancel", "--signal=USR1", job)
    assert cluster.wait(job) == "COMPLETED", cluster.job_log(job)
    log = cluster.job_log(job)
    assert "stopped by SIGUSR1" in log or "stopped by another rank" in log
    assert "crash" not in log  # the first rank to end takes the other with it
    assert "the job goes back to the queue" in log
    assert f"attempt 2 of job {job}" in log
    assert "resumed after step" in log
    assert_same_weights(run, whole_run)


def test_a_preempted_job_goes_on_after_the_urgent_one(
    cluster: Cluster, config: Path, whole_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    job = submit(cluster, config, run, **SLOW)
    wait_for_step(cluster, job, run, STEP_OF_INTERRUPTION)
    urgent = cluster.run(
        *("sbatch", "--parsable", "--partition=urgent", "--nodes=2", "--exclusive"),
        *("--output=/dev/null", "--wrap=sleep 1"),
    )
    assert cluster.wait(urgent) == "COMPLETED"
    assert cluster.wait(job) == "COMPLETED", cluster.job_log(job)
    log = cluster.job_log(job)
    assert "crash" not in log
    assert f"attempt 2 of job {job}" in log
    assert "resumed after step" in log
    assert_same_weights(run, whole_run)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        # Gloo's, as the system resets it at once; or srun is as quick, and ends the other rank.
        (signal.SIGKILL, "Connection|task 1: Killed"),
        (signal.SIGSTOP, r"no sign of life for 8 s \(ranks.heartbeat_timeout\) of rank 1 on n2"),
    ],
)
def test_a_lost_rank_takes_the_attempt_down_and_the_job_goes_on(
    how: signal.Signals,
    message: str,
    cluster: Cluster,
    config: Path,
    whole_run: Path,
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    options = ("ranks.heartbeat_timeout=8", "train.save_in_background=false")
    job = submit(cluster, config, run, *options, **SLOW)
    wait_for_step(cluster, job, run, STEP_OF_INTERRUPTION)
    other, lost = rank_process(job, 0), rank_process(job, 1)
    lost.send_signal(how)
    other.wait(timeout=60)
    lost.wait(timeout=60)
    assert cluster.wait(job) == "COMPLETED", cluster.job_log(job)
    log = cluster.job_log(job)
    assert re.search(message, log)
    assert "(crash 1 in a row)" in log
    assert f"attempt 2 of job {job}" in log
    assert "resumed after step 12" in log
    assert_same_weights(run, whole_run)


def test_what_is_wrong_with_a_node_is_said_once_before_training(
    cluster: Cluster, config: Path, tmp_path: Path
) -> None:
    two_ranks = {"RANKS_PER_NODE": "2"}
    job = submit(cluster, config, tmp_path / "run", "data.train=/nowhere", nodes=1, **two_ranks)
    assert cluster.wait(job) == "FAILED"
    log = cluster.job_log(job)
    assert log.count("error: n1: /nowhere is not a folder of training shards") == 1
    assert log.count("error: the pre-flight failed") == 2
    assert "back to the queue" not in log
    assert not (tmp_path / "run").exists()


def test_a_wrong_world_size_in_the_environment_ends_the_job(
    cluster: Cluster, config: Path, tmp_path: Path
) -> None:
    job = submit(cluster, config, tmp_path / "run", WORLD_SIZE="64")
    assert cluster.wait(job) == "FAILED"
    log = cluster.job_log(job)
    assert "error: the environment says WORLD_SIZE=64; Slurm started 2 process(es)" in log
    assert "back to the queue" not in log
