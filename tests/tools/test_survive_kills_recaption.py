"""Workers that are really killed, and that what a kill may do wrong would be seen."""

import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from recaption.common.config import load_config
from recaption.config import RunConfig
from recaption.runner import run
from recaption.table import read_rows, read_stats, write_table
from tests.recaption.shard_files import sample, write_tar
from tools.survive_kills_recaption.check import compare
from tools.survive_kills_recaption.witness import Witness, WriteKills


def test_killed_workers_leave_the_tables_of_an_undisturbed_run(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tools.survive_kills_recaption", f"output={tmp_path}/run"]
    command += ["num_kills=3", "num_workers=2", "num_shards=12", "shard_size=10", "image_size=512"]
    done = subprocess.run(
        [*command, "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr + done.stdout
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["num_kills"] >= 3
    assert figures["kills"]["write"] == 1 == sum(figures["found_of_tables"].values())
    assert figures["num_starts"] >= 2 + figures["kills"]["worker"] + figures["kills"]["write"]
    assert figures["num_rows"] == 120


def test_what_differs_is_found(tmp_path: Path) -> None:
    write_tar(tmp_path / "in/a.tar", [m for index in range(4) for m in sample(f"k{index}", index)])
    for name in ("whole", "killed"):
        arguments = ["engine.name=existing", f"input={tmp_path}/in", f"output={tmp_path / name}"]
        run(load_config(RunConfig, arguments))
    folders = str(tmp_path / "in"), tmp_path / "killed", tmp_path / "whole"
    same = compare(*folders)
    assert (same.num_rows, same.missing, same.double, same.different) == (4, [], [], [])
    rows, stats = read_rows(tmp_path / "killed", "a"), read_stats(tmp_path / "killed", "a")
    assert stats is not None
    rows = [replace(rows[0], caption="Another."), rows[1], rows[1], replace(rows[2], key="x")]
    write_table(tmp_path / "killed", rows, stats)
    other = compare(*folders)
    assert other.missing == ["a k2 existing", "a k3 existing"]
    assert other.double == ["a k1 existing"]
    assert other.unknown == ["a x"]
    assert len(other.different) == 1 and "'Another.'" in other.different[0]


def test_work_that_is_done_twice_is_seen(tmp_path: Path) -> None:
    output = tmp_path / "out"
    witness = Witness(output, tmp_path / "witness", WriteKills(0, 1, random.Random(0)))
    for worker, keys in {"one": ["k0", "k1"], "two": ["k1"]}.items():
        lines = [json.dumps({"row": {"key": key, "prompt_id": "long"}}) for key in keys]
        journal = output / f"work/a.journal.{worker}.jsonl"
        journal.write_text("\n".join(["{}", *lines, '{"row": {"ke']))
        (output / f".{worker}").write_text("{}")
        (output / f".{worker}").rename(output / "a.stats.json")
        witness.look()
        journal.unlink()
    assert witness.num_answered() == 3
    assert witness.answered_twice() == {("a", "k1", "long"): 2}
    assert witness.written_twice() == ["a"]
