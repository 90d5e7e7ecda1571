"""What a process is told about itself, from torchrun, from Slurm, or from nobody."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pretrain.distributed.launch import VARIABLES, announce_rank, describe_attempt, first_host
from recaption.common.config import UserError
from recaption.common.processes import process_start
from tests.places import CHECKOUT
from tools.stages import torchrun


def task(tmp_path: Path, **changes: str) -> dict[str, str]:
    """What srun tells task 11 of 16, eight on each of two nodes."""
    return {
        "SLURM_JOB_ID": "1234",
        "SLURM_STEP_ID": "2",
        "SLURM_NTASKS": "16",
        "SLURM_PROCID": "11",
        "SLURM_LOCALID": "3",
        "SLURM_NODEID": "1",
        "SLURM_STEP_TASKS_PER_NODE": "8(x2)",
        "SLURM_STEP_NODELIST": "gpu[07,09]",
        "TMPDIR": str(tmp_path),
        **changes,
    }


def test_a_task_of_slurm_is_a_rank(tmp_path: Path) -> None:
    environment = task(tmp_path)
    announce_rank(environment)
    told = {name: environment[name] for name in VARIABLES}
    assert told == {
        "RANK": "11",
        "LOCAL_RANK": "3",
        "WORLD_SIZE": "16",
        "LOCAL_WORLD_SIZE": "8",
        "MASTER_ADDR": "gpu07",
        "MASTER_PORT": str(20000 + (16 * 1234 + 2) % 12000),
    }
    assert environment["TMPDIR"] == str(tmp_path / "canopy-1234-1-1")
    assert Path(environment["TMPDIR"]).is_dir()
    announced = dict(environment)
    announce_rank(environment)  # a command within a command
    assert environment == announced


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"WORLD_SIZE": "8"}, "says WORLD_SIZE=8; .*16.*unset WORLD_SIZE"),
        ({"LOCAL_WORLD_SIZE": "1"}, "LOCAL_WORLD_SIZE=1; .* it is 8"),
        ({"RANK": "3"}, "RANK=3; .* it is 11"),
        ({"SLURM_STEP_TASKS_PER_NODE": "9,7"}, "16 tasks as 9,7 .*--ntasks-per-node"),
        ({"SLURM_STEP_TASKS_PER_NODE": "4(x2)"}, r"16 tasks as 4\(x2\)"),
        ({"SLURM_PROCID": "7"}, "task 7 is number 3 of node 1.*--distribution=block"),
    ],
)
def test_numbers_that_contradict_slurm_are_refused(
    changes: dict[str, str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        announce_rank(task(tmp_path, **changes))


def test_one_task_is_alone_and_torchrun_within_a_job_is_left_alone(tmp_path: Path) -> None:
    single = task(tmp_path, SLURM_NTASKS="1", SLURM_PROCID="0", SLURM_STEP_TASKS_PER_NODE="1")
    announce_rank(single)
    assert (single["WORLD_SIZE"], single["MASTER_ADDR"]) == ("1", "127.0.0.1")
    by_torchrun = task(tmp_path, TORCHELASTIC_RUN_ID="x", RANK="5", WORLD_SIZE="6")
    before = dict(by_torchrun)
    announce_rank(by_torchrun)
    assert by_torchrun == before


def test_without_a_launcher_a_process_is_alone() -> None:
    environment: dict[str, str] = {}
    announce_rank(environment)
    assert (environment["RANK"], environment["LOCAL_WORLD_SIZE"]) == ("0", "1")
    with pytest.raises(UserError, match="WORLD_SIZE=4; nobody launched"):
        announce_rank({"WORLD_SIZE": "4"})
    with pytest.raises(UserError, match=r"RANK=1 is set and LOCAL_RANK, .*MASTER_PORT is not"):
        announce_rank({"RANK": "1", "WORLD_SIZE": "2"})


def test_the_command_refuses_a_stale_world_size_in_one_line(tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "pretrain", "train", "run=r", "data.train=d"],
        cwd=CHECKOUT,
        env={**os.environ, **task(tmp_path), "WORLD_SIZE": "64"},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 2
    assert process.stderr == (
        "error: the environment says WORLD_SIZE=64; Slurm started 16 process(es), and here it is "
        "16: unset WORLD_SIZE\n"
    )


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("n1", "n1"), ("gpu[03-10,12],login1", "gpu03"), ("a,b[1-2]", "a"), ("r[2-3]n[04]", "r2n04")],
)
def test_the_first_host(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


def test_the_attempt() -> None:
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]"}
    assert describe_attempt(job) == "attempt 1 of job 7 on n[1-2]"
    job["SLURM_RESTART_COUNT"] = "2"
    assert describe_attempt(job).startswith("attempt 3 ")


def test_the_ranks_of_a_torchrun_that_is_killed_end(tmp_path: Path) -> None:
    """They live in sessions of their own, so nothing else would tell them."""
    words = [*torchrun(2), "tests.pretrain.distributed.waiting_rank", str(tmp_path)]
    launcher = subprocess.Popen(words, cwd=CHECKOUT, stderr=subprocess.DEVNULL)
    ranks: list[int] = []
    try:
        end = time.monotonic() + 60
        while len(ranks) < 2 and time.monotonic() < end:
            time.sleep(0.1)
            ranks = [int(path.name) for path in tmp_path.iterdir()]
        assert len(ranks) == 2 and all(process_start(rank) for rank in ranks)
        launcher.kill()
        launcher.wait()
        end = time.monotonic() + 10
        while any(process_start(rank) for rank in ranks) and time.monotonic() < end:
            time.sleep(0.1)
        assert not any(process_start(rank) for rank in ranks)
    finally:
        launcher.kill()
        for rank in ranks:
            if process_start(rank):
                os.kill(rank, signal.SIGKILL)
