"""What is told of jobs that ended early, and of a Slurm that does not answer."""

import json
import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from recaption.common.config import UserError, load_config
from tests.tools.scaling_laws.ladders import write_ladder
from tools.scaling_laws import jobs, plan, run
from tools.scaling_laws.ladder import LadderConfig, make_rungs


def put_squeue(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    folder.mkdir()
    program = folder / "squeue"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.fixture
def ladder(tmp_path: Path) -> Path:
    methods = {"clip": {"recipe": [str(tmp_path / "clip.yaml")], "sizes": {"s": []}}}
    path = write_ladder(tmp_path, methods=methods, cost={"text_length": 20}, slurm=True)
    output = tmp_path / "out"
    output.mkdir()
    (output / "jobs.json").write_text(json.dumps({"clip-s-seed0-s16": "7"}))
    return path


class Slurm:
    """Takes what would be submitted; a real cluster is in tests/slurm."""

    def __init__(self) -> None:
        self.arrays: list[tuple[Any, list[str]]] = []  # what was asked for, and the runs' folders

    def take(self, config: Any, runs: list[list[str]]) -> list[Any]:
        number = 8 + len(self.arrays)
        folders = [next(word for word in run if word.startswith("run=")) for run in runs]
        self.arrays.append((config, [Path(folder).name for folder in folders]))
        return [
            SimpleNamespace(job_id=f"{number}_{i}", paths=SimpleNamespace(stdout=Path("log")))
            for i in range(len(runs))
        ]

    @property
    def asked(self) -> list[tuple[list[str], list[str]]]:
        return [(config.options, runs) for config, runs in self.arrays]


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Slurm:
    slurm = Slurm()
    monkeypatch.setattr(jobs, "submit", slurm.take)
    put_squeue(tmp_path / "bin", monkeypatch, "exit 0")
    return slurm


def test_a_job_that_ended_early_is_a_failure_and_is_submitted_again(
    ladder: Path, tmp_path: Path, slurm: Slurm, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "7_0_log.out"
    log.write_text("attempt 1 of job 7\n      1 error: no such caption\nthe job ends: mend it\n")
    kept = {"clip-s-seed0-s16": {"job": "7", "log": str(log)}}
    (tmp_path / "out" / "jobs.json").write_text(json.dumps(kept))
    with pytest.raises(UserError, match=r"failed: clip-s-seed0-s16; .* they are submitted again"):
        run.main([str(ladder), "--json"])
    printed = capsys.readouterr().out
    assert f"; job 7: error: no such caption; log {log}\n" in printed
    told = json.loads(printed.splitlines()[-1])
    assert told["failed"] == ["clip-s-seed0-s16"]
    assert [(row["name"], row["status"]) for row in told["results"]] == [
        ("clip-s-seed0-s16", "failed")
    ]
    assert slurm.asked == [
        ([], ["clip-s-seed0-s16"]),
        (["dependency=afterany:8_0"], ["clip-s-seed0-s32"]),
    ]
    kept = json.loads((tmp_path / "out" / "jobs.json").read_text())
    assert kept["clip-s-seed0-s32"] == {"job": "9_0", "log": "log"}


@pytest.mark.parametrize(
    ("max_parallel", "dependencies"),
    [
        (2, [[], ["dependency=afterany:8_0"], ["dependency=afterany:8_1"]]),
        (1, [[], ["dependency=afterany:8_0:8_1"]]),
    ],
)
def test_a_length_waits_for_its_own_trunk(
    tmp_path: Path, slurm: Slurm, max_parallel: int, dependencies: list[list[str]]
) -> None:
    """Unless that would be more jobs at a time than wanted."""
    job = {"max_parallel": max_parallel}
    path = write_ladder(tmp_path, cost={"text_length": 20}, slurm=True, job=job)
    assert run.main([str(path)]) == 0
    assert [options for options, _ in slurm.asked] == dependencies


def test_a_submission_that_was_cut_short_is_not_made_twice(
    ladder: Path, tmp_path: Path, slurm: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was killed between `sbatch` and the numbers; of the second array Slurm knows nothing."""
    (tmp_path / "out" / "jobs.json").unlink()

    def die(config: Any, runs: list[list[str]]) -> None:
        slurm.take(config, runs)
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "submit", die)
    with pytest.raises(KeyboardInterrupt):
        run.main([str(ladder)])
    ((config, _),) = slurm.arrays
    monkeypatch.setattr(jobs, "submit", slurm.take)
    put_squeue(tmp_path / "bin2", monkeypatch, f"echo 7 other; echo 8 {config.name}")
    assert run.main([str(ladder)]) == 0
    assert slurm.asked[1:] == [(["dependency=afterany:8"], ["clip-s-seed0-s32"])]


def test_runs_in_the_queue_are_not_trained_here(
    ladder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_squeue(tmp_path / "bin", monkeypatch, "echo 7 ladder")
    with pytest.raises(UserError, match=r"clip-s-seed0-s16 is job 7 in Slurm's .*`scancel 7`"):
        run.main([str(ladder), "slurm=false"])
    config = load_config(LadderConfig, [str(ladder)])
    rungs = make_rungs(config)
    queued = plan.queued_jobs(config, rungs)
    told = plan.format_plan(plan.make_plan(config, rungs, queued), config)
    assert "new, job 7 in the queue" in told
    # Who cannot be asked does not say that nothing runs.
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"jobs\.json names jobs of runs .* no squeue here"):
        run.main([str(ladder), "slurm=false"])


def test_a_slurm_that_does_not_answer(
    ladder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_squeue(tmp_path / "bin", monkeypatch, "echo no controller >&2; exit 1")
    with pytest.raises(UserError, match="squeue does not say which jobs wait or run: no contr"):
        run.main([str(ladder)])


@pytest.mark.parametrize("kept", ['{"clip-s-seed0-s16": {"jobb": 1}}', "[1]", '{"a": 3}'])
def test_jobs_that_are_not_understood(
    ladder: Path, tmp_path: Path, slurm: Slurm, kept: str
) -> None:
    (tmp_path / "out" / "jobs.json").write_text(kept)
    for command in (plan, run):
        with pytest.raises(UserError, match=r"jobs\.json does not hold the jobs of runs \("):
            command.main([str(ladder)])
