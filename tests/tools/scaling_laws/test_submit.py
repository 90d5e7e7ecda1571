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
from tools.scaling_laws import run, submit
from tools.scaling_laws.ladder import LadderConfig, make_rungs
from tools.scaling_laws.outcome import FAILURE


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


def test_a_job_that_ended_early_is_a_failure_and_is_submitted_again(
    ladder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What would be submitted is taken here; a real cluster is in tests/slurm."""
    put_squeue(tmp_path / "bin", monkeypatch, "exit 0")
    submitted: list[list[str]] = []

    def take(config: Any, runs: list[list[str]]) -> list[Any]:
        submitted.extend(runs)
        paths = SimpleNamespace(stdout="log")
        return [SimpleNamespace(job_id=str(8 + i), paths=paths) for i in range(len(runs))]

    monkeypatch.setattr(submit, "submit", take)
    with pytest.raises(UserError, match=r"failed: clip-s-seed0-s16; .* they are submitted again"):
        run.main([str(ladder), "--json"])
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["failed"] == ["clip-s-seed0-s16"]
    assert len(submitted) == 2
    first = make_rungs(load_config(LadderConfig, [str(ladder)]))[0]
    assert not (first.folder / FAILURE).exists()  # it is on its way again


def test_a_slurm_that_does_not_answer(
    ladder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_squeue(tmp_path / "bin", monkeypatch, "echo no controller >&2; exit 1")
    with pytest.raises(UserError, match="squeue does not say which jobs wait or run: no contr"):
        run.main([str(ladder)])
