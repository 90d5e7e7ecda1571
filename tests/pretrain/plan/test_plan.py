"""The plan against real steps, a dry run of 64 ranks, and what a user may get wrong."""

import json
import os
import subprocess
import sys
from dataclasses import astuple, replace
from pathlib import Path

import pytest
import torch

from pretrain.models.count import forward_macs
from pretrain.plan.command import PlanConfig, main, make_plan
from pretrain.plan.step import (
    _traced_loss,
    build_without_numbers,
    count_forward_macs,
    trace_loss,
    trace_step,
)
from pretrain.plan.zero import STAGES, count_weights, partition_sizes, rank_state, sent_bytes
from pretrain.trained_module import build_module
from recaption.common.config import ConfigError, load_config
from tests.places import CHECKOUT
from tests.pretrain.trainruns import TINY
from tests.pretrain.untrained import TINY_CLIP
from tools.check_plan import measured_peak


def configured(folder: Path, text: str = TINY, *overrides: str) -> PlanConfig:
    path = folder / "tiny.yaml"
    path.write_text(text)
    return load_config(PlanConfig, [str(path), "data.train=none", "text_length=12", *overrides])


CHECKED = [
    (
        TINY,
        ["engine.zero_stage=1", "train.recompute_blocks=true", "data.batch_size=48"],
    ),
    (TINY_CLIP, ["engine.zero_stage=2", "data.batch_size=64", "engine.precision=bf16"]),
    (
        TINY,
        ["engine.zero_stage=0", "engine.num_micro_batches=4", "data.batch_size=512"],
    ),
    (
        TINY,
        ["engine.zero_stage=3", "engine.ema_decay=0.9", "data.batch_size=96", "gpus=2"],
    ),
]


@pytest.mark.parametrize(("text", "overrides"), CHECKED)
def test_memory_is_that_of_a_real_step(tmp_path, text, overrides):
    config = configured(tmp_path, text, "device=cpu", *overrides)
    precision, stage = config.engine.precision, config.engine.zero_stage
    planned = make_plan(config)["memory"][precision][stage]
    arguments = [str(tmp_path / "tiny.yaml"), "text_length=12", *overrides]
    measured = measured_peak(config.world_size, arguments)
    assert (planned["bucket"] > 0) == (stage > 0)
    assert (planned["ema"] > 0) == (config.engine.ema_decay > 0)
    assert planned["peak"] == pytest.approx(measured, rel=0.15)


def test_a_dry_run_of_64_ranks_holds_and_sends_as_planned(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    script = Path(__file__).parent / "dry_run.py"
    process = subprocess.run(
        [sys.executable, str(script), str(path)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )
    config = load_config(PlanConfig, [str(path), "data.train=none", "nodes=8", "gpus=8"])
    of_loss = trace_loss(config, trace_step(config, 8).features, 64).sent
    weights = count_weights(build_without_numbers(config), config.optim)
    rows = json.loads(process.stdout.splitlines()[-1])
    assert [(row["stage"], row["num_pieces"]) for row in rows] == [
        (stage, num_pieces) for stage in STAGES for num_pieces in (1, 2)
    ]
    for row in rows:
        stage, num_pieces = row["stage"], row["num_pieces"]
        planned = sum(partition_sizes(weights, stage, 64))
        assert row["updated"] == planned
        assert row["states"] == 2 * planned
        assert planned < weights.trained / 50 or stage == 0
        assert row["weights"] == (planned if stage == 3 else weights.trained)
        assert row["kept_whole"] == (sum(weights.kept) if stage == 3 else weights.trained)
        state = rank_state(weights, stage, 64, num_pieces, has_ema=True, is_gpu=True)
        assert row["ema"] == state.ema / 4
        assert row["gradients"] in (None, state.gradients / 4)
        sent = sent_bytes(weights, stage, 64, num_pieces) + of_loss
        # Single numbers that all ranks agree on, such as the gradient's norm, are left out.
        assert row["sent"] == pytest.approx(sent, rel=1e-3)


def test_micro_batches_keep_less_and_compute_more(tmp_path):
    config = configured(tmp_path, TINY, "data.batch_size=64")
    in_pieces = configured(tmp_path, TINY, "data.batch_size=64", "engine.num_micro_batches=4")
    whole, few = trace_step(config, 12), trace_step(in_pieces, 12)
    assert few.peak < 0.6 * whole.peak
    # The stem goes over all images at once, and what it gave is kept until its turn.
    of_stem = 64 * 24 * 8 * 8 * 4
    assert few.activations > of_stem
    assert few.peak > 3 * of_stem
    plans = [make_plan(replace(c, peak_flops=1e12)) for c in (config, in_pieces)]
    needed, flops = (plan["flops_per_sample"] for plan in plans)
    assert needed["total"] == flops["total"]
    assert needed["again"] == 0
    encoders = flops["image"] + flops["text"]
    assert flops["again"] == pytest.approx(encoders / 3 + flops["superpixels"])
    steps = [plan["time"]["step_seconds"] for plan in plans]
    assert steps[1] / steps[0] == pytest.approx(1 + flops["again"] / flops["total"])
    blocks = make_plan(configured(tmp_path, TINY, "train.recompute_blocks=true"))
    assert 0 < blocks["flops_per_sample"]["again"] < flops["again"]


@pytest.mark.parametrize("form", ["sigmoid", "softmax"])
def test_the_loss_of_many_ranks_is_extrapolated_from_few(tmp_path, form):
    config = configured(tmp_path, TINY.replace("softmax", form))
    features = trace_step(config, 12).features
    planned, real = (trace(config, features, 24) for trace in (trace_loss, _traced_loss))
    assert astuple(planned) == pytest.approx(astuple(real), rel=0.05)


def test_arithmetic_on_shapes_is_that_on_numbers(tmp_path):
    config = configured(tmp_path)
    model = build_module(config).model
    assert count_forward_macs(config, 12) == forward_macs(model, 32, 8, 12, False)


def test_what_a_plan_says(tmp_path, capsys):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    more = ["engine.precision=bf16", "num_samples=1000000", "peak_flops=1e12", "bandwidth=1e9"]
    main([f"config={path}", "nodes=2", "gpus=4", *more, "mfu=0.5", "--json"])
    lines = capsys.readouterr().out.splitlines()
    plan = json.loads(lines[-1])
    module = build_module(load_config(PlanConfig, [str(path), "data.train=none"]))
    assert plan["parameters"]["total"] == sum(p.numel() for p in module.parameters())
    flops = plan["flops_per_sample"]["total"] * 4
    sent = plan["sent_bytes"]
    seconds = flops / 0.5e12 + (sent["weights_and_gradients"][1] + sent["features"]) / 1e9
    assert plan["time"]["step_seconds"] == pytest.approx(seconds)
    assert plan["time"]["gpu_hours"] == pytest.approx(1e6 / 32 * seconds * 8 / 3600)
    chosen = [line for line in lines if line.endswith("<-")]
    assert len(chosen) == 2  # its memory, and what it sends
    for rows in plan["memory"].values():
        optimisers = [row["optimiser"] for row in rows]
        assert optimisers[1] < optimisers[0] / 4
    fp32, bf16 = (plan["memory"][name][1]["activations"] for name in ("fp32", "bf16"))
    assert 0 < fp32 != bf16 > 0


def test_without_a_speed_there_are_no_times(tmp_path, capsys):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY_CLIP)
    main([str(path)])
    output = capsys.readouterr().out
    assert "no times: give accelerator=" in output and "days" not in output


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("nodes=0", "nodes=0: it must be at least 1"),
        ("gpus=-8", "gpus=-8: it must be at least 1"),
        ("mfu=2", "mfu=2"),
        ("accelerator=abacus", "accelerator is 'abacus'; choose a100 or h100"),
        ("node=2", "did you mean 'nodes'"),
    ],
)
def test_mistakes_are_named(tmp_path, override, message):
    with pytest.raises(ConfigError, match=message):
        configured(tmp_path, TINY, override)


def test_blocks_computed_again_keep_less(tmp_path):
    few, many = (
        trace_step(configured(tmp_path, TINY, f"train.recompute_blocks={again}"), 12)
        for again in ("true", "false")
    )
    assert few.activations < 0.8 * many.activations
    assert torch.Size([4, 24]) == few.features[0].pooled.shape
