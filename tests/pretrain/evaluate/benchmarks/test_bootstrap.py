"""Intervals of shares."""

import numpy as np
import pytest

from pretrain.evaluate.bootstrap import resampled_interval, share_intervals


def test_the_interval_is_that_of_a_binomial_share() -> None:
    hits = (np.arange(400) % 4 == 0).astype(float)[:, None]  # 25 %
    ((low, high),) = share_intervals(hits, np.arange(400))
    deviation = (0.25 * 0.75 / 400) ** 0.5
    assert low == pytest.approx(0.25 - 1.96 * deviation, abs=0.01)
    assert high == pytest.approx(0.25 + 1.96 * deviation, abs=0.01)


def test_texts_of_one_image_are_drawn_together() -> None:
    """Five equal texts an image say no more than one."""
    hits = (np.arange(400) % 4 == 0).astype(float)[:, None]
    once = share_intervals(hits, np.arange(400))
    five_times = share_intervals(np.repeat(hits, 5, axis=0), np.repeat(np.arange(400), 5))
    assert np.allclose(once, five_times)
    as_if_apart = share_intervals(np.repeat(hits, 5, axis=0), np.arange(2000))
    assert as_if_apart[0][1] - as_if_apart[0][0] < 0.6 * (once[0][1] - once[0][0])


def test_the_same_hits_give_the_same_interval_and_all_hits_no_width() -> None:
    hits = np.stack([np.ones(30), np.arange(30) % 2], axis=1)
    first = share_intervals(hits, np.arange(30))
    assert first == share_intervals(hits, np.arange(30))
    assert first[0] == (1.0, 1.0)
    assert first[1][0] < 0.5 < first[1][1]


def test_a_share_is_a_figure_of_sums() -> None:
    hits = np.random.default_rng(1).integers(0, 2, (300, 1)).astype(np.float64)
    (share,) = share_intervals(hits, np.arange(300))
    both = np.concatenate([hits, np.ones_like(hits)], axis=1)
    assert resampled_interval(both, lambda sums: sums[:, 0] / sums[:, 1]) == share
