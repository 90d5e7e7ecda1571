"""``python -m slurm.submit`` on a real cluster."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from recaption.common.config import UserError
from slurm.submit import SubmitConfig, sbatch_parameters, submit
from slurm.submit_recaption import RecaptionJobConfig, submit_workers
from tests.places import CHECKOUT
from tests.recaption.shard_files import write_tar
from tests.slurm.captions import CLAIMS, assert_all_captioned, busy_worker, write_slow_shards
from tests.slurm.cluster import Cluster
from tests.slurm.jobs import (
    ENVIRONMENT,
    SLOW,
    STEP_OF_INTERRUPTION,
    assert_same_weights,
    wait_for_step,
)


def test_a_list_of_runs_is_an_array_and_each_goes_on(
    cluster: Cluster, config: Path, tmp_path: Path
) -> None:
    """Two runs that differ only in what happens to them."""
    runs = [tmp_path / "left-alone", tmp_path / "interrupted"]
    command = [sys.executable, "-m", "slurm.submit", "nodes=1", "gpus_per_node=0"]
    command += ["cpus_per_rank=1", f"logs={tmp_path / 'logs'}", "--json"]
    for run in runs:
        command += ["--", str(config), f"run={run}"]
    environment = cluster.environment | ENVIRONMENT | SLOW
    process = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    jobs = json.loads(process.stdout.splitlines()[-1])["jobs"]
    assert [job.split("_")[1] for job in jobs] == ["0", "1"]
    wait_for_step(cluster, jobs[1], runs[1], STEP_OF_INTERRUPTION)
    cluster.run("scancel", "--signal=USR2", jobs[1])
    logs = {job: tmp_path / "logs" / f"{job}_0_log.out" for job in jobs}
    for job in jobs:
        assert cluster.wait(job) == "COMPLETED", logs[job].read_text()
    assert "attempt 2 of job" not in logs[jobs[0]].read_text()  # the other is left in peace
    assert "stopped by SIGUSR2" in logs[jobs[1]].read_text()
    assert f"attempt 2 of job {jobs[1]}" in logs[jobs[1]].read_text()
    assert_same_weights(*runs)


def test_what_is_asked_of_slurm() -> None:
    config = SubmitConfig(partition="gpu", options=["--constraint=a100", "contiguous"])
    parameters = sbatch_parameters(config)
    assert parameters["ntasks_per_node"] == 8
    assert parameters["partition"] == "gpu"
    assert parameters["account"] is None
    assert parameters["additional_parameters"] == {
        "requeue": True,
        "mem": "0",
        "gpus-per-node": 8,
        "constraint": "a100",
        "contiguous": True,
    }


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([], "no run given"),
        (
            [["run=r", "data.train=d", "optim.learnin_rate=1"]],
            r"did you mean 'optim.learning_rate'",
        ),
        ([["run=r", "data.train=d"], ["run=./r", "data.train=d"]], "more than once"),
    ],
)
def test_mistakes_are_told_before_anything_is_submitted(
    runs: list[list[str]], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        submit(SubmitConfig(), runs)


def test_workers_are_an_array_and_a_signalled_one_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    shards, tables, logs = write_slow_shards(tmp_path / "in"), tmp_path / "out", tmp_path / "logs"
    command = [sys.executable, "-m", "slurm.submit", "recaption", "num_workers=2", f"logs={logs}"]
    command += ["gpus_per_worker=0", "cpus_per_worker=1", "mem_per_cpu=200M"]
    command += [f"python={sys.executable}", "--json", "--", "engine.name=existing"]
    process = subprocess.run(
        [*command, f"input={shards}", f"output={tables}", *CLAIMS, "num_decoded_ahead=4"],
        cwd=CHECKOUT,
        env=cluster.environment | ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    jobs = json.loads(process.stdout.splitlines()[-1])["jobs"]
    busy_worker(tables, "1")
    cluster.run("scancel", "--signal=USR2", jobs[1])
    outputs = [logs / f"{job}_0_log.out" for job in jobs]
    for job, output in zip(jobs, outputs, strict=True):
        assert cluster.wait(job) == "COMPLETED", output.read_text()
    assert_all_captioned(tables, shards)
    assert "attempt 2 of job" not in outputs[0].read_text()  # the other is left in peace
    assert f"attempt 2 of job {jobs[1]}" in outputs[1].read_text()
    assert "crash" not in outputs[1].read_text()
    assert "stopping at SIGUSR2" in (logs / f"{jobs[1]}_0_log.err").read_text()


@pytest.mark.parametrize(
    ("python", "argument", "message"),
    [
        (sys.executable, "engine.nam=vllm", "did you mean 'engine.name'"),
        (sys.executable, "num_decode_processes=1", r"no \*.tar"),
        ("/no/python", "engine.name=existing", "/no/python"),
    ],
)
def test_mistakes_of_workers_are_told_before_anything_is_submitted(
    python: str, argument: str, message: str, tmp_path: Path
) -> None:
    if message == "/no/python":
        write_tar(tmp_path / "a.tar", [])
    with pytest.raises(UserError, match=message):
        submit_workers(
            RecaptionJobConfig(python=python), [f"input={tmp_path}", "output=out", argument]
        )
