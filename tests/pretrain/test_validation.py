"""Validation while a run trains, by the real command on real ranks."""

import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pretrain.checkpoint import newest_checkpoint
from pretrain.config import PretrainConfig
from pretrain.data.tokens import Tokenizer
from pretrain.distributed.ranks import Ranks
from pretrain.evaluate.contrast import retrieval_loss
from pretrain.evaluate.examples import choose_examples
from pretrain.evaluate.measure import measure
from pretrain.evaluate.retrieval import retrieval
from pretrain.inference import load_for_inference
from pretrain.metrics import read_metrics, read_validations
from pretrain.preemption import StopRequest
from pretrain.validation import Validation
from recaption.common.config import ConfigError, UserError, load_config
from tests.pretrain.trainruns import TINY, train, write_training_shards
from tests.pretrain.untrained import write_boxed_shards

NUM_HELD_OUT = 13  # three batches of 5: neither batches nor ranks come out even


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 6 steps under ZeRO 3, where a rank that makes a forward fewer hangs the others."""
    folder = tmp_path_factory.mktemp("validation")
    shards = write_training_shards(folder / "shards", 40)
    write_boxed_shards(folder / "held-out", NUM_HELD_OUT)
    path = folder / "tiny.yaml"
    path.write_text(
        TINY.replace("data: {", f"data: {{train: {shards}, ")
        + f"run: {folder / 'run'}\n"
        + "engine: {zero_stage: 3, ema_decay: 0.9}\n"
        + "train: {num_steps: 6, log_every: 1, checkpoint_every: 100}\n"
        + f"validation: {{data: {folder / 'held-out'}, batch_size: 5}}\n"
    )
    return path


@pytest.fixture(scope="module")
def plain_run(config: Path) -> Path:
    train(config, num_ranks=2)
    return config.parent / "run"


@pytest.fixture(scope="module")
def validated_run(config: Path) -> Path:
    run = config.parent / "validated"
    output = train(config, f"run={run}", "validation.every=4", num_ranks=2)
    assert output.count("validation after step ") == 2
    assert f"({NUM_HELD_OUT} images)" in output
    return run


def figures(run: Path) -> dict[int, dict[str, float]]:
    return {row["step"]: row["validation"] for row in read_validations(run / "metrics.jsonl")}


def assert_same_training(run: Path, expected: Path) -> None:
    for name in ("model", "ema", "optimizer"):
        ours, theirs = (
            load_file(newest_checkpoint(folder) / f"{name}.safetensors")
            for folder in (run, expected)
        )
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    ours, theirs = (
        [row["loss"] for row in read_metrics(folder / "metrics.jsonl")]
        for folder in (run, expected)
    )
    assert ours == theirs


def test_training_is_as_if_there_were_no_validation(plain_run: Path, validated_run: Path) -> None:
    assert list(figures(validated_run)) == [4, 6]
    assert figures(validated_run)[4] != figures(validated_run)[6]
    assert figures(plain_run) == {}
    assert_same_training(validated_run, plain_run)


def test_figures_are_those_of_one_rank_and_of_evaluate(
    config: Path, plain_run: Path, validated_run: Path, tmp_path: Path
) -> None:
    """A run that is at its end and asked for validation only now makes its last one."""
    run = tmp_path / "run"
    shutil.copytree(plain_run, run)
    one_rank = (f"run={run}", "data.batch_size=8", "engine.zero_stage=0", "validation.every=4")
    assert "validation after step 6 " in train(config, *one_rank)
    assert figures(run) == {6: figures(validated_run)[6]}
    found = figures(run)[6]
    assert found["num_images"] == NUM_HELD_OUT and found["loss"] > 0

    inference = load_for_inference(run)
    data = config.parent / "held-out"
    examples = choose_examples(data, inference.config, "", 500).examples
    scores = measure(inference, data, examples, [[] for _ in examples], 50).scores
    of_all = next(iter(scores.values()))
    assert found["retrieval_loss"] == pytest.approx(retrieval_loss(of_all), rel=1e-5)
    expected = retrieval(of_all)
    for way, recall in (("t2i", expected.text_to_image), ("i2t", expected.image_to_text)):
        assert [found[f"{way}_r{k}"] for k in (1, 5, 10)] == [recall.r1, recall.r5, recall.r10]


def test_a_stop_of_one_rank_in_the_midst_of_it(config: Path, plain_run: Path) -> None:
    """All ranks leave it between two batches and save; the next attempt makes it up."""
    held_out = write_training_shards(config.parent / "many", 10)
    run = config.parent / "stopped"
    options = (
        *(f"run={run}", "validation.every=4", f"validation.data={held_out}"),
        "validation.batch_size=1",
    )
    output = train(config, *options, num_ranks=2, module="tests.pretrain.stopped_in_validation")
    assert "validation after step 4 abandoned" in output
    assert "stopped by another rank after step 4" in output
    assert figures(run) == {}
    assert newest_checkpoint(run).name == "step-00000004"

    output = train(config, *options, num_ranks=2)
    assert output.index("validation after step 4 ") < output.index("step 5/")
    assert list(figures(run)) == [4, 6]
    assert figures(run)[4]["num_images"] == 10
    assert_same_training(run, plain_run)


def test_a_set_that_cannot_be_read_is_told_before_the_first_step(
    config: Path, one_rank: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # pytest's own handlers stay
    for override, message in (
        ("validation.data=nowhere", r"nowhere is not a folder of training shards"),
        ("validation.source=tall", r"held-out: no sample has a caption from source 'tall'; .*long"),
    ):
        chosen = load_config(PretrainConfig, [str(config), "validation.every=1", override])
        with pytest.raises(UserError, match=message):
            Validation(chosen, Tokenizer(32), one_rank, StopRequest())
    with pytest.raises(ConfigError, match=r"validation\.every=1 needs samples.*validation\.data="):
        load_config(PretrainConfig, [str(config), "validation.every=1", "validation.data=''"])
