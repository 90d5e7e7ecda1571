"""Two trainings in one folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pretrain.__main__ import run as run_command
from pretrain.run_lock import alone_in
from recaption.common.config import UserError
from tests.pretrain.trainruns import TINY, write_training_shards

HOLD = """
import os, sys
from pathlib import Path
from pretrain.run_lock import alone_in

with alone_in(Path(sys.argv[1])):
    child = os.fork()
    if child:
        print("held", flush=True)
    sys.stdin.read()
"""


def test_the_second_is_refused_and_names_the_first(tmp_path: Path) -> None:
    shards = write_training_shards(tmp_path / "shards", 8)
    config, run = tmp_path / "tiny.yaml", tmp_path / "run"
    config.write_text(TINY)
    words = [str(config), f"run={run}", f"data.train={shards}", "data.num_workers=0"]
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match=rf"process {holder.pid} on .* trains in it"):
            run_command(["train", *words, "train.num_steps=4"])
        assert not (run / "config.yaml").exists()
    finally:
        holder.kill()
        holder.wait()
    # It goes with its process, though one that it has forked lives on.
    with alone_in(run):
        pass
    assert holder.stdin is not None
    holder.stdin.close()


def test_steps_of_slurm_hold_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The attempt before may still be ending on a node that is gone."""
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    monkeypatch.setenv("SLURM_PROCID", "0")
    with alone_in(tmp_path / "run"):
        assert not (tmp_path / "run").exists()
