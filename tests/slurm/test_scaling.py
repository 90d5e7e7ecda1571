"""A ladder as arrays of jobs on a real cluster."""

import json
from pathlib import Path

import pytest

from recaption.common.config import UserError, load_config
from tests.places import CHECKOUT
from tests.slurm.cluster import Cluster
from tests.slurm.jobs import ENVIRONMENT
from tests.tools.scaling_laws.ladders import write_ladder
from tools.scaling_laws import run
from tools.scaling_laws.ladder import LadderConfig, make_rungs
from tools.scaling_laws.outcome import state_of


def test_lengths_wait_for_the_trunk_and_are_collected(
    cluster: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in (cluster.environment | ENVIRONMENT).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(CHECKOUT)
    job = {
        "nodes": 1,
        "gpus_per_node": 0,
        "cpus_per_rank": 1,
        "exclusive": False,
        "logs": str(tmp_path / "logs"),
    }
    methods = {"clip": {"recipe": [str(tmp_path / "clip.yaml")], "sizes": {"s": []}}}
    ladder = write_ladder(tmp_path, methods=methods, cost={"text_length": 20}, slurm=True, job=job)
    assert run.main([str(ladder)]) == 0
    assert "0 of 2 runs done" in capsys.readouterr().out
    jobs = json.loads((tmp_path / "out" / "jobs.json").read_text())
    short, long = (jobs[f"clip-s-seed0-s{samples}"]["job"] for samples in (16, 32))
    assert f"afterany:{short}" in cluster.run("scontrol", "show", "job", long)
    # Nothing is submitted twice, also where nobody has heard the numbers, nor trained here.
    for heard in (True, False):
        if not heard:
            name = cluster.run("squeue", "--noheader", f"--jobs={long}", "--format=%j").strip()
            jobs["clip-s-seed0-s32"] = {"submission": name}
            (tmp_path / "out" / "jobs.json").write_text(json.dumps(jobs))
        assert run.main([str(ladder)]) == 0
        assert f"clip-s-seed0-s32: job {long} is in the queue" in capsys.readouterr().out
    with pytest.raises(UserError, match=f"clip-s-seed0-s32 is job {long} in Slurm's queue"):
        run.main([str(ladder), "slurm=false"])
    for job_id in (short, long):
        assert cluster.wait(job_id) == "COMPLETED", cluster.job_log(job_id)
    assert run.main([str(ladder), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["results"]
    assert [row["status"] for row in rows] == ["done", "done"]
    assert all(state_of(r).is_done for r in make_rungs(load_config(LadderConfig, [str(ladder)])))
