"""The real command on real ranks: it learns, resumes bit by bit, and stops when asked."""

import contextlib
import json
import math
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from pretrain.checkpoint import complete_checkpoints, newest_checkpoint
from pretrain.code_history import read_code
from pretrain.config import PretrainConfig
from pretrain.evaluate.provenance import describe_code
from pretrain.inference import load_for_inference
from pretrain.metrics import read_metrics
from pretrain.models.image.superpixels import SpixelFcn
from pretrain.ops.recompute import Recomputing
from pretrain.trained_module import build_module
from recaption.common.config import UserError, load_config
from tests.pretrain.trainruns import TINY, start_training, train, write_training_shards
from tools.survive_kills import read_keys


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    shards = write_training_shards(folder / "shards", 40)
    path = folder / "tiny.yaml"
    path.write_text(TINY + "train: {num_steps: 8, log_every: 1, checkpoint_every: 3}\n")
    with path.open("a") as file:
        file.write(f"run: {folder / 'whole'}\n")
    path.write_text(path.read_text().replace("data: {", f"data: {{train: {shards}, "))
    return path


@pytest.fixture(scope="module")
def whole_run(config: Path) -> Path:
    """An uninterrupted run of 8 steps on two ranks."""
    train(config, num_ranks=2)
    return config.parent / "whole"


def weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"step-{step:08d}" / "model.safetensors")


def test_a_run_leaves_config_metrics_and_complete_checkpoints(whole_run: Path) -> None:
    names = sorted(path.name for path in (whole_run / "checkpoints").iterdir())
    assert names == ["step-00000006", "step-00000008"]
    assert all((whole_run / "checkpoints" / name / "COMPLETE").exists() for name in names)
    rows = read_metrics(whole_run / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert rows[-1]["num_samples_seen"] == 8 * 4 * 2
    assert rows[0]["loss"] == pytest.approx(
        rows[0]["part_local"] + rows[0]["part_global"] + rows[0]["whole"], rel=1e-5
    )
    shares = [
        rows[-1][f"{name}_share"] for name in ("data_wait", "compute", "communication", "save")
    ]
    assert min(shares[:3]) > 0 and sum(shares) <= 1
    assert "min_crop_area" in (whole_run / "config.yaml").read_text()
    (code,) = read_code(whole_run)
    assert code == {"after_step": 0, **describe_code()}


def test_a_resumed_run_equals_an_uninterrupted_one(config: Path, whole_run: Path) -> None:
    """A run that died after step 8 was logged, while a later checkpoint was being written."""
    run = config.parent / "resumed"
    shutil.copytree(whole_run, run)
    (run / "checkpoints" / "step-00000008" / "COMPLETE").unlink()
    output = train(config, f"run={run}", "--json", num_ranks=2)
    assert "resumed after step 6" in output
    (figures,) = [line for line in output.splitlines() if line.startswith("{")]
    assert json.loads(figures) == read_metrics(run / "metrics.jsonl")[-1]
    expected, resumed = weights(whole_run, 8), weights(run, 8)
    assert expected.keys() == resumed.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, resumed[name]), name
    rows, expected_rows = (read_metrics(r / "metrics.jsonl") for r in (run, whole_run))
    assert [row["loss"] for row in rows] == [row["loss"] for row in expected_rows]


def poisoned(*steps: int) -> dict[str, str]:
    """An environment in which the images of these steps hold a NaN."""
    folder = Path(__file__).parent / "disturbed"
    return {"POISONED_STEPS": ",".join(map(str, steps)), "PYTHONPATH": str(folder)}


def keys_by_step(run: Path) -> list[set[str]]:
    """The keys of the samples of each step, of all ranks."""
    keys = read_keys(run)
    return [keys[step] for step in sorted(keys)]


def test_a_run_goes_on_with_other_ranks_and_zero_stages(
    config: Path, whole_run: Path, tmp_path: Path
) -> None:
    """Two ranks, one, two again: the same samples in every step, and nearly the same weights."""
    run = tmp_path / "run"
    for last, num_ranks, options in (
        (3, 2, ["engine.zero_stage=3"]),
        (6, 1, ["engine.zero_stage=0", "data.batch_size=8", "engine.num_micro_batches=2"]),
        (8, 2, ["engine.zero_stage=2"]),
    ):
        output = train(
            *(config, f"run={run}", f"train.stop_at_step={last}"),
            *("train.write_keys=true", *options),
            num_ranks=num_ranks,
        )
        assert ("resumed after step" in output) == (last > 3)
    whole = tmp_path / "whole"
    train(config, f"run={whole}", "train.write_keys=true", num_ranks=2)
    assert keys_by_step(run) == keys_by_step(whole)
    assert len(keys_by_step(run)) == 8 and len(keys_by_step(run)[5]) == 8


@pytest.mark.parametrize(
    ("number", "to_all"),
    [(signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGTERM, True)],
)
def test_a_stop_leaves_a_checkpoint_of_the_last_step(
    config: Path, number: signal.Signals, to_all: bool
) -> None:
    """To torchrun, which hands it on; or to every process of the job, as Slurm sends it."""
    run = config.parent / f"stopped-{number.name}-{to_all}"
    process = start_training(
        config,
        *(f"run={run}", "train.num_steps=100000", "train.checkpoint_every=100000"),
        num_ranks=2,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step 2/"):
            job = psutil.Process(process.pid)
            members = job.children(recursive=True)
            for member in [*(members if to_all else []), job]:
                with contextlib.suppress(psutil.NoSuchProcess):  # the first took it with it
                    member.send_signal(number)
            break
    output, _ = process.communicate(timeout=120)
    assert len(members) >= 4  # ranks and their loader workers
    assert psutil.wait_procs(members, timeout=10)[1] == []
    assert f"stopped by {number.name}" in output or "stopped by another rank" in output, output
    (checkpoint,) = (run / "checkpoints").iterdir()
    step = read_metrics(run / "metrics.jsonl")[-1]["step"]
    assert checkpoint.name == f"step-{step:08d}"
    assert load_for_inference(run).source == checkpoint


def test_a_run_goes_on_only_as_it_was_begun(config: Path, whole_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "lr=1e-3"  # a path that looks like an override
    shutil.copytree(whole_run, run)
    before = (run / "config.yaml").read_text()
    for override, num_ranks, words in (
        ("optim.learning_rate=1e-3", 2, "optim.learning_rate=0.0005, not 0.001"),
        ("model.text.part.num_layers=2", 2, "model.text.part.num_layers=1, not 2"),
        ("train.log_every=1", 1, "8 images a step; 1 ranks x data.batch_size=4 are 4: set data."),
    ):
        process = start_training(config, f"run={run}", override, num_ranks=num_ranks)
        output, _ = process.communicate(timeout=120)
        assert process.returncode != 0 and words in output, output
        assert (run / "config.yaml").read_text() == before
    assert load_for_inference(run).source.parent == run / "checkpoints"
    train(config, f"run={run}", "train.num_steps=9", "metrics.console_every=5", num_ranks=2)
    assert read_metrics(run / "metrics.jsonl")[-1]["step"] == 9


def test_bfloat16_is_close_to_float32(config: Path, whole_run: Path, tmp_path: Path) -> None:
    train(config, f"run={tmp_path}", "engine.precision=bf16", num_ranks=2)
    expected = [row["loss"] for row in read_metrics(whole_run / "metrics.jsonl")]
    losses = [row["loss"] for row in read_metrics(tmp_path / "metrics.jsonl")]
    assert losses == pytest.approx(expected, rel=2e-2)
    assert losses != expected
    assert torch.bfloat16 not in {tensor.dtype for tensor in weights(tmp_path, 8).values()}


@pytest.mark.parametrize("stage", [2])
def test_a_frozen_superpixel_network_stays_as_it_was_published(
    config: Path, stage: int, tmp_path: Path
) -> None:
    """Its weights come from a file at the start, and from the checkpoint ever after."""
    torch.manual_seed(0)
    network, file = SpixelFcn(), tmp_path / "network.safetensors"
    save_file(network.state_dict(), file)
    superpixels = "model.image.hierarchical.superpixels"
    command = [
        *(config, f"run={tmp_path / 'run'}", f"engine.zero_stage={stage}", "model.image.size=64"),
        *(f"{superpixels}.name=spixelfcn", f"{superpixels}.cell_size=16", "train.num_steps=4"),
    ]
    process = start_training(*command)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2
    assert f"give {superpixels}.spixelfcn.weights=FILE" in output.splitlines()[-1]

    train(*command, f"{superpixels}.spixelfcn.weights={file}", num_ranks=2)
    prefix = "model.image.superpixels."
    expected, trained = network.state_dict(), weights(tmp_path / "run", 4)
    assert {n.removeprefix(prefix) for n in trained if n.startswith(prefix)} == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(trained[prefix + name], tensor), name

    (tmp_path / "run" / "checkpoints" / "step-00000004" / "COMPLETE").unlink()
    file.unlink()
    elsewhere = f"{superpixels}.spixelfcn.weights=elsewhere"
    assert "resumed after step 3" in train(*command, elsewhere, num_ranks=2)
    for name, tensor in weights(tmp_path / "run", 4).items():
        assert torch.equal(trained[name], tensor), name


def test_what_is_to_be_computed_again_is_told_to_the_model(config: Path) -> None:
    chosen = load_config(PretrainConfig, [str(config), "train.recompute_blocks=true"])
    module = build_module(chosen)
    parts = [part for part in module.modules() if isinstance(part, Recomputing)]
    assert len(parts) == 3 + 2 + 1 + 1  # blocks of three stages, poolings, texts
    assert {part.recompute for part in parts} == {True}


def test_gradients_that_are_never_finite_end_the_run(config: Path, tmp_path: Path) -> None:
    process = start_training(
        *(config, f"run={tmp_path}", "optim.learning_rate=1e30"),
        "stability.max_skipped_in_a_row=3",
    )
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2, output
    assert "there is no checkpoint to go back to" in output.splitlines()[-1]
    assert "Traceback" not in output
    assert complete_checkpoints(tmp_path) == []  # none of the weights that were the trouble


@pytest.mark.parametrize("stage", [0, 3])
def test_bad_data_is_passed_by_going_back(config: Path, stage: int, tmp_path: Path) -> None:
    """Two steps of it: the step before them is gone back to, and the data behind them taken."""
    run = tmp_path / "run"
    command = (config, f"run={run}", "train.write_keys=true", f"engine.zero_stage={stage}")
    options = ("stability.max_skipped_in_a_row=2", "engine.ema_decay=0.9", "train.num_steps=6")
    output = train(*command, *options, num_ranks=2, environment=poisoned(4, 5))
    assert "back to the checkpoint of step 3, and on with other data (roll-back 1)" in output
    rows = read_metrics(run / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert all(math.isfinite(row["loss"]) for row in rows)
    assert rows[-1]["num_rollbacks"] == 1
    clean = tmp_path / "clean"
    train(config, f"run={clean}", "train.write_keys=true", num_ranks=2)
    steps = keys_by_step(clean)
    assert keys_by_step(run) == [*steps[:3], *steps[5:8]]
    for tensors in (weights(run, 6), load_file(newest_checkpoint(run) / "ema.safetensors")):
        assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_going_back_where_the_last_checkpoint_could_not_be_written(
    config: Path, tmp_path: Path
) -> None:
    """Step 3 goes back to that of step 1, for that of step 2 met something in its way."""
    in_its_way = tmp_path / "checkpoints" / ".step-00000002.tmp"
    in_its_way.parent.mkdir()
    in_its_way.write_text("")
    output = train(
        *(config, f"run={tmp_path}", "train.num_steps=4", "train.checkpoint_every=1"),
        "stability.max_skipped_in_a_row=1",
        num_ranks=2,
        environment=poisoned(3),
    )
    assert "warning: the checkpoint of step 2 cannot be written" in output
    assert "back to the checkpoint of step 1, and on with other data (roll-back 1)" in output
    assert newest_checkpoint(tmp_path).name == "step-00000004"
    assert read_metrics(tmp_path / "metrics.jsonl")[-1]["num_failed_checkpoints"] == 2


def test_a_checkpoint_without_its_marker_is_refused(whole_run: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoints" / "step-00000001"
    checkpoint.mkdir(parents=True)
    for path in (tmp_path, checkpoint):
        with pytest.raises(UserError, match="COMPLETE"):
            load_for_inference(path)


def test_inference_loads_what_was_trained(whole_run: Path) -> None:
    loaded = load_for_inference(whole_run)
    expected = weights(whole_run, 8)
    for name, tensor in loaded.model.state_dict().items():
        assert torch.equal(tensor, expected[f"model.{name}"])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.batch_size=41", ["40 samples", "data.batch_size"]),
        ("data.train=nowhere", ["nowhere", "index.json"]),
        ("engine.zero_stag=1", ["engine.zero_stag", "engine.zero_stage"]),
        ("data.captions.sources=[tall]", ["tall", "long"]),
        ("data.captions.name=hole", ["data.captions.name", "whole"]),
        ("data.image.resize=sqush", ["data.image.resize", "squash"]),
        ("engine.zero_stage=4", ["engine.zero_stage is 4", "3"]),
        ("engine.num_micro_batches=3", ["data.batch_size=4", "engine.num_micro_batches=3"]),
        ("train.log_every=0", ["train.log_every=0", "1"]),
        ("optim.num_warmup_steps=8", ["optim.num_warmup_steps=8", "train.num_steps=8"]),
        ("seed=-1", ["seed=-1"]),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    config: Path, tmp_path: Path, override: str, words: list[str]
) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "pretrain", "train", config, f"run={tmp_path}", override],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 2, result.stderr
    message = result.stderr.strip().splitlines()[-1]
    assert message.startswith("error: ")
    assert all(word in message for word in words), message
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_every_zero_stage_gives_the_same_losses_and_resumes(
    config: Path, whole_run: Path, stage: int
) -> None:
    """As stage 1, the default, does."""
    run = config.parent / f"stage-{stage}"
    command = (config, f"run={run}", f"engine.zero_stage={stage}")
    train(*command, num_ranks=2)
    expected = read_metrics(whole_run / "metrics.jsonl")
    losses = [row["loss"] for row in read_metrics(run / "metrics.jsonl")]
    assert losses == pytest.approx([row["loss"] for row in expected], rel=1e-5)

    uninterrupted = weights(run, 8)
    assert uninterrupted.keys() == weights(whole_run, 8).keys()
    (run / "checkpoints" / "step-00000008" / "COMPLETE").unlink()
    assert "resumed after step 6" in train(*command, num_ranks=2)
    for name, tensor in weights(run, 8).items():
        assert torch.equal(tensor, uninterrupted[name]), name
