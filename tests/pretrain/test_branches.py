"""Cool-downs from one run at a constant rate, and runs on a part of the shards."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pretrain.__main__ import run as run_command
from pretrain.checkpoint import checkpoint_folder, complete_checkpoints, find_checkpoint
from pretrain.code_history import read_code
from pretrain.config import PretrainConfig
from pretrain.data.shards import TrainingShards
from pretrain.metrics import read_metrics
from recaption.common.config import UserError, load_config
from tests.pretrain.trainruns import TINY, write_training_shards


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("branches")
    shards = write_training_shards(folder / "shards", 24)
    path = folder / "tiny.yaml"
    path.write_text(TINY.replace("data: {", f"data: {{train: {shards}, num_workers: 0, "))
    schedule = "optim: {schedule: wsd, num_decay_steps: 2, num_warmup_steps: 1}"
    keeping = "train: {log_every: 1, num_kept_checkpoints: 1, keep_steps: [3]}"
    path.write_text(path.read_text().replace("optim: {num_warmup_steps: 2}", schedule) + keeping)
    return path


def train(*arguments: str | Path) -> None:
    """In this process: a start of Python costs more than these steps."""
    assert run_command(["train", *map(str, arguments)]) == 0


@pytest.fixture(scope="module")
def trunk(config: Path) -> Path:
    run = config.parent / "trunk"
    train(config, f"run={run}", "train.num_steps=8")
    return run


def test_a_step_that_is_kept_is_saved_and_stays(trunk: Path) -> None:
    assert [folder.name for folder in complete_checkpoints(trunk)] == [
        "step-00000003",
        "step-00000008",
    ]


def test_a_branch_equals_a_run_of_its_length(
    config: Path, trunk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Up to the branch the schedule does not know the length, so there is one run for many."""
    branch, alone = config.parent / "branch", config.parent / "alone"
    begin = f"train.begin_from={checkpoint_folder(trunk, 3)}"
    arguments = (config, f"run={branch}", "train.num_steps=5", begin)
    train(*arguments)
    assert "resumed after step 3" in capsys.readouterr().out
    train(config, f"run={alone}", "train.num_steps=5")
    assert [row["step"] for row in read_metrics(branch / "metrics.jsonl")] == [4, 5]
    weights, expected = (
        load_file(checkpoint_folder(run, 5) / "model.safetensors") for run in (branch, alone)
    )
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())
    assert [part["after_step"] for part in read_code(branch)] == [0]  # the trunk's steps, too
    train(*arguments)
    assert "resumed after step 5" in capsys.readouterr().out  # of its own, not the trunk's


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.embed_dim=32", r"begun with model\.embed_dim=24, not 32.*may change the schedule"),
        ("train.num_steps=3", r"leaves nothing of train\.num_steps=3"),
        ("data.batch_size=2", r"trunk trains on 4 images a step"),
    ],
)
def test_what_a_branch_may_not_change(
    config: Path, trunk: Path, tmp_path: Path, override: str, message: str
) -> None:
    begin = f"train.begin_from={checkpoint_folder(trunk, 3)}"
    arguments = [str(config), f"run={tmp_path}", begin, "optim.num_decay_steps=1", override]
    with pytest.raises(UserError, match=message):
        find_checkpoint(tmp_path, load_config(PretrainConfig, arguments), world_size=1)


def test_a_branch_from_nowhere(config: Path, trunk: Path, tmp_path: Path) -> None:
    begin = f"train.begin_from={checkpoint_folder(trunk, 4)}"
    run = load_config(PretrainConfig, [str(config), f"run={tmp_path}", begin])
    with pytest.raises(UserError, match=r"step-00000004 is no complete.*train\.keep_steps"):
        find_checkpoint(tmp_path, run, world_size=1)


def test_the_first_rows_of_the_shards(tmp_path: Path) -> None:
    write_training_shards(tmp_path, 24, size_limit=2**13)
    whole = TrainingShards(tmp_path)
    first_two = int(whole.sizes[:2].sum())
    assert len(whole.sizes) > 2
    for num_samples in (1, first_two - 1, first_two, first_two + 1):
        part = TrainingShards(tmp_path, num_samples)
        assert part.num_samples == num_samples
        assert np.all(part.sizes > 0) and np.all(part.sizes <= whole.sizes[: len(part.sizes)])
        keys = [part[index]["key"] for index in range(num_samples)]
        assert keys == [whole[index]["key"] for index in range(num_samples)]
    with pytest.raises(UserError, match=r"holds 24 samples, fewer than data\.num_samples=25"):
        TrainingShards(tmp_path, 25)
