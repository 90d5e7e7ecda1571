import math

import pytest

from pretrain.stability import StabilityConfig, StepWatch
from recaption.common.config import ConfigError, UserError


def test_training_goes_back_after_so_many_skipped_steps_in_a_row_and_gives_up_at_last() -> None:
    watch = StepWatch(StabilityConfig(max_skipped_in_a_row=2, max_rollbacks=1))
    asked = [watch.must_roll_back(accepted, 0) for accepted in (False, True, False, False, False)]
    assert asked == [False, False, False, True, False]
    with pytest.raises(UserError, match=r"2 steps in a row, .* 1 times already"):
        watch.must_roll_back(False, 1)


def test_a_loss_out_of_the_ordinary_has_a_high_score() -> None:
    watch = StepWatch(StabilityConfig(spike_window=50))
    scores = [watch.spike_score(2.0 + 0.1 * (-1) ** step) for step in range(40)]
    assert max(map(abs, scores)) < 1.5
    assert watch.spike_score(3.0) > 5
    assert watch.spike_score(math.nan) == math.inf
    assert watch.spike_score(2.0) < 1  # what was not finite has left no trace


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"stability\.max_skipped_in_a_row"):
        StabilityConfig(max_skipped_in_a_row=0)
