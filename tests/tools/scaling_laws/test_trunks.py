"""Intervals of a few trunks with several branches each."""

import numpy as np
import pytest

from tests.tools.scaling_laws.synthetic import JOINT, joint, ladder, trunk_noise
from tools.scaling_laws.bootstrap import bootstrap_law, interval
from tools.scaling_laws.describe import Points, describe_law
from tools.scaling_laws.fitting import FittedLaw, fit_law
from tools.scaling_laws.laws import ComputeLaw, Floats, JointLaw, Law
from tools.scaling_laws.trunks import estimate_scatter, simulate_law

DELTA = 1e-3
TRUNKS, BRANCHES = 0.02, 0.005
PLACES = ladder(num_sizes=4, num_lengths=3)
RUNS = np.repeat([f"trunk{i}" for i in range(4)], 3)
LAW = JointLaw(has_floor=False)
TRUTH = {**JOINT, "E": 0.0}


def values_of(seed: int) -> Floats:
    return joint(*PLACES.T, **TRUTH) * trunk_noise(4, 3, TRUNKS, BRANCHES, seed)


def fit(seed: int, law: Law = LAW) -> FittedLaw:
    return fit_law(law, PLACES, values_of(seed), DELTA)


def test_scatter_of_trunks_and_of_branches_is_told_apart() -> None:
    found = [estimate_scatter(fit(seed), PLACES, RUNS) for seed in range(12)]
    assert all(each is not None for each in found)
    trunks, branches = (
        np.sqrt(np.mean([getattr(each, name) ** 2 for each in found]))
        for name in ("trunks", "branches")
    )
    assert trunks == pytest.approx(TRUNKS, rel=0.4)
    assert branches == pytest.approx(BRANCHES, rel=0.4)
    # Four means, of which a level and an exponent of the size take nearly two.
    assert found[0] is not None and 1.5 < found[0].trunks_freedom < 2.5


def test_a_law_that_bends_through_all_trunks_tells_nothing_of_their_scatter() -> None:
    is_small = PLACES[:, 0] < PLACES[-1, 0]
    places, runs = PLACES[is_small], RUNS[is_small]
    fitted = fit_law(JointLaw(), places, values_of(0)[is_small], DELTA)
    assert estimate_scatter(fitted, places, runs) is None


def test_intervals_hold_the_truth_although_trunks_are_few() -> None:
    """Of the exponent of the size, of which trunks tell all; branches that are drawn one by one
    have intervals that are far too narrow."""
    held = np.zeros(2, dtype=int)
    for seed in range(20):
        fitted = fit(seed, JointLaw())
        scatter = estimate_scatter(fitted, PLACES, RUNS)
        assert scatter is not None
        simulated = simulate_law(fitted, PLACES, RUNS, scatter, DELTA, 40, [seed])
        alone = np.arange(12).astype(str)
        drawn = bootstrap_law(fitted, PLACES, values_of(seed), alone, DELTA, 40, [seed])
        for i, law in enumerate((simulated, drawn)):
            within = interval(law.theta[2], law.replicates[:, 2], 0.9)
            held[i] += within.low <= TRUTH["a"] <= within.high
    assert held[0] >= 17 > 14 >= held[1], held


def test_the_law_is_drawn_at_its_sizes_where_the_best_is_not_known() -> None:
    """What does not depend on the size has no best size; all sizes trained have their line."""
    values = 2 * PLACES[:, 1] ** -0.1 * trunk_noise(4, 3, TRUNKS, BRANCHES, 1)
    fitted = fit_law(LAW, PLACES, values, DELTA)
    scatter = estimate_scatter(fitted, PLACES, RUNS)
    assert scatter is not None
    simulated = simulate_law(fitted, PLACES, RUNS, scatter, DELTA, 40, [0])
    flops = 6 * PLACES.prod(axis=1)
    points = Points(list(RUNS), PLACES, flops, values)
    law = describe_law(
        simulated, points, points.select(flops < 0), "loss", 0.9, [], np.random.default_rng(0)
    )
    assert (law.optima, law.optimal_exponents) == ([], None)
    assert any("no best N and D of a budget are told" in note for note in law.notes)
    assert [(band.at, band.size) for band in law.bands] == [
        ("size", size) for size in np.unique(PLACES[:, 0])
    ]
    for band in law.bands:
        assert band.size is not None
        ends = 6 * band.size * PLACES[[0, -1], 1]
        assert (band.flops[0], band.flops[-1]) == pytest.approx(tuple(ends))
        middle = len(band.flops) // 2
        assert band.low[middle] < band.value[middle] < band.high[middle]


def test_a_curve_of_branches() -> None:
    """The scatter of one more run is that of its trunk and its own."""
    curve: Law = ComputeLaw(has_offset=False)
    flops = PLACES.prod(axis=1, keepdims=True)
    values = 2 * flops[:, 0] ** -0.02 * trunk_noise(4, 3, 0.02, 0.0, 3)
    fitted = fit_law(curve, flops, values, DELTA)
    scatter = estimate_scatter(fitted, flops, RUNS)
    assert scatter is not None
    simulated = simulate_law(fitted, flops, RUNS, scatter, DELTA, 40, [0])
    assert simulated.replicates.shape == (40, 4)
    assert simulated.run_scatter is not None
    assert np.median(simulated.run_scatter) > 0.5 * scatter.trunks
