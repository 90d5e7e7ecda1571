"""The pre-flight says what is wrong on a node, and that the ranks cannot meet."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pretrain import preflight
from pretrain.config import PretrainConfig
from pretrain.distributed.launch import VARIABLES
from pretrain.preflight import checkpoint_bytes, find_problems
from recaption.common.config import load_config
from tests.places import CHECKOUT
from tests.pretrain.trainruns import TINY, write_training_shards


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    shards = write_training_shards(tmp_path / "shards", 8)
    config = tmp_path / "tiny.yaml"
    config.write_text(TINY.replace("data: {", f"data: {{train: {shards}, "))
    return [str(config), f"run={tmp_path / 'run'}", "preflight.all_reduce_mb=1"]


def problems(arguments: list[str]) -> list[str]:
    return list(find_problems(load_config(PretrainConfig, arguments)))


def preflight_command(
    arguments: list[str], **environment: str
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "pretrain", "preflight", *arguments],
        cwd=CHECKOUT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_a_healthy_node_has_no_problem(arguments: list[str], tmp_path: Path) -> None:
    process = preflight_command([*arguments, "--json"])
    assert process.returncode == 0, process.stderr
    assert "pre-flight: 1 ranks added up 1 MB" in process.stdout
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("preflight.min_free_cache_gb=1e9", "GB free of 1000000000.00 GB needed: set TMPDIR"),
        ("preflight.min_free_shared_gb=1e9", "/dev/shm has"),
        ("preflight.num_free_checkpoints=1000000000", "1000000000 checkpoints must fit"),
        ("data.train=/nowhere", "/nowhere is not a folder of training shards"),
        ("run=/proc/run", "/proc cannot be written to"),
    ],
)
def test_each_lack_is_one_line(arguments: list[str], override: str, message: str) -> None:
    (problem,) = problems([*arguments, override])
    assert message in problem


def test_a_shard_of_the_right_size_that_cannot_be_read(
    arguments: list[str], tmp_path: Path
) -> None:
    (shard,) = (tmp_path / "shards").glob("shard.*")
    shard.write_bytes(bytes([255]) * shard.stat().st_size)
    (problem,) = problems(arguments)
    assert f"{shard} cannot be read" in problem


def test_leftovers_are_removed_first(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "_SHARED_MEMORY", tmp_path)
    monkeypatch.setattr("pretrain.distributed.leftovers._YOUNGEST_SECONDS", 0.0)
    left = tmp_path / "000000_locals"
    left.touch()
    assert problems(arguments) == []
    assert not left.exists()


def test_the_size_of_a_checkpoint(arguments: list[str]) -> None:
    tiny = checkpoint_bytes(load_config(PretrainConfig, arguments))
    wider = checkpoint_bytes(load_config(PretrainConfig, [*arguments, "model.embed_dim=48"]))
    assert 0 < tiny < wider < 100e6


def test_ranks_that_do_not_meet_are_told(arguments: list[str]) -> None:
    process = preflight_command(
        [*arguments, "preflight.all_reduce_timeout=2"],
        RANK="0",
        LOCAL_RANK="0",
        WORLD_SIZE="2",
        LOCAL_WORLD_SIZE="2",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(20000 + os.getpid() % 10000),
    )
    assert process.returncode == 2
    last = process.stderr.splitlines()[-1]
    assert last.startswith("error: rank 0 of 2 on ")
    assert "could not meet the others within 2 s (at 127.0.0.1:" in last


def test_nothing_of_it_is_left_for_a_training_in_the_same_process(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a submitted job's: with this set the host would wait for each collective."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # what the pre-flight sets goes with the test
        monkeypatch.delenv(name)
    monkeypatch.delenv("TORCH_NCCL_BLOCKING_WAIT", raising=False)
    preflight.main(arguments)
    assert "TORCH_NCCL_BLOCKING_WAIT" not in os.environ
