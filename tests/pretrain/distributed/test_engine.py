"""The engine alone: what it does with a gradient that is not finite."""

import math

import pytest
import torch
from torch import nn

from pretrain.distributed.engine import Engine, EngineConfig


def test_a_bad_gradient_is_left_out_and_counted_in_every_zero_stage(one_rank):
    trained = {}
    for stage in (0, 1, 2, 3):
        torch.manual_seed(0)
        layer = nn.Linear(4, 1, device=one_rank.device)
        group = {"params": list(layer.parameters()), "lr": 0.1, "lr_scale": 1.0}
        engine = Engine(layer, [group], EngineConfig(zero_stage=stage, max_grad_norm=2.0), 2, {})
        accepted = []
        for value in (1.0, math.nan, 1.0):
            engine.backward(engine.forward(torch.full((2, 4), value, device=one_rank.device)).sum())
            accepted.append(engine.step())
        assert accepted == [True, False, True]
        assert engine.num_skipped_steps == 1
        # Of two samples of ones: 2 for each of four weights and the bias.
        assert engine.grad_norm == pytest.approx(20**0.5)
        assert engine.shards.num_updates == 2
        trained[stage] = dict(engine.shards.weights())["weight"].clone()
        assert trained[stage].isfinite().all()
    for stage in (1, 2, 3):
        torch.testing.assert_close(trained[stage], trained[0])
