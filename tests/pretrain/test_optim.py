import itertools
import math

import pytest
import torch
from torch import nn

from pretrain.optim import OptimConfig, learning_rate, parameter_groups
from recaption.common.config import ConfigError

CONFIG = OptimConfig(learning_rate=2.0, num_warmup_steps=4, scalar_lr_scale=10.0)


def test_the_schedule_rises_then_follows_a_cosine_to_zero() -> None:
    rates = [learning_rate(step, 12, CONFIG) for step in range(13)]
    assert rates[:4] == [0.5, 1.0, 1.5, 2.0]
    assert rates[8] == pytest.approx(1.0)
    assert rates[12] == pytest.approx(0.0)
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates[4:]))
    assert rates[6] == pytest.approx(1 + math.cos(math.pi / 4))


def test_only_matrices_decay_and_scalars_learn_faster() -> None:
    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 2)
            self.norm = nn.LayerNorm(3)
            self.logit_scale = nn.Parameter(torch.zeros(()))
            self.frozen = nn.Parameter(torch.zeros(2, 2), requires_grad=False)

    module = Module()
    by_parameter = {
        parameter: group
        for group in parameter_groups(module, CONFIG)
        for parameter in group["params"]
    }
    assert module.frozen not in by_parameter
    assert by_parameter[module.linear.weight]["weight_decay"] == 0.5
    for parameter in (module.linear.bias, module.norm.weight, module.logit_scale):
        assert by_parameter[parameter]["weight_decay"] == 0.0
    assert by_parameter[module.logit_scale]["lr_scale"] == 10.0
    assert by_parameter[module.norm.weight]["lr_scale"] == 1.0


def test_warm_up_stable_decay():
    config = OptimConfig(
        learning_rate=1.0, num_warmup_steps=4, schedule="wsd", num_decay_steps=5, final_share=0.2
    )
    rates = [learning_rate(step, 20, config) for step in range(21)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4:16] == [1.0] * 12
    assert rates[16:] == pytest.approx([0.84, 0.68, 0.52, 0.36, 0.2])
    # The stable part does not know how long the run is.
    assert learning_rate(10, 1000, config) == rates[10]


def test_an_unknown_schedule_is_an_error():
    with pytest.raises(ConfigError, match=r"optim\.schedule is 'cosin'"):
        OptimConfig(schedule="cosin")
