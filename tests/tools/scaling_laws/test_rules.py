"""What the rules give, by hand."""

import pytest

from recaption.common.config import ConfigError
from tools.scaling_laws.rules import RulesConfig


def test_powers_of_the_number_of_parameters() -> None:
    rules = RulesConfig(
        params=1e6, batch=100, batch_exponent=0.5, learning_rate=1e-3, learning_rate_exponent=-0.25
    )
    assert rules.batch_of(1e6, 1) == 100
    assert rules.batch_of(4e6, 1) == 200
    assert rules.batch_of(4e6, 48) == 192  # the nearest multiple of ranks and micro-batches
    assert rules.batch_of(1, 8) == 8
    # 16 ^ -1/4 = 1/2 by size, sqrt 4 = 2 by batch
    assert rules.learning_rate_of(16e6, 400) == pytest.approx(1e-3)
    assert rules.learning_rate_of(16e6, 100) == pytest.approx(5e-4)


def test_lengths_of_warm_up_and_cool_down() -> None:
    rules = RulesConfig(warmup_share=0.1, cooldown_share=0.2)
    assert rules.warmup_steps_of(200, batch=8) == 20
    assert RulesConfig(warmup_samples=80).warmup_steps_of(200, batch=8) == 10
    assert rules.cooldown_steps_of(200) == 40
    assert rules.cooldown_steps_of(1) == 1
    with pytest.raises(ConfigError, match=r"rules\.cooldown_share=1\.5: a share"):
        RulesConfig(cooldown_share=1.5)
