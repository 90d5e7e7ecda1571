"""Intervals hold the truth as often as they say."""

import numpy as np
import pytest

from tests.tools.scaling_laws.synthetic import CURVE, JOINT, curve, joint, ladder, noise
from tools.scaling_laws.bootstrap import bootstrap_law, interval, resample_runs
from tools.scaling_laws.fitting import TooFewPoints, fit_law
from tools.scaling_laws.laws import ComputeLaw, Floats, JointLaw, Law

NUM_TABLES = 60
#: Of 60 tables an interval that truly holds in 75 % reaches it once in twelve times.
FEWEST_HELD = 50
FLOPS = np.geomspace(1e15, 1e19, 24)[:, None]


def check_coverage(law: Law, inputs: Floats, truth: Floats, parameters: dict[str, float]) -> None:
    """90 % intervals of each parameter and of an extrapolation hold the truth often enough."""
    names = np.arange(len(inputs)).astype(str)
    beyond = inputs.max(axis=0, keepdims=True) * 10
    expected = np.append(list(parameters.values()), _of(law, beyond, parameters))
    held = np.zeros(len(expected))
    for seed in range(NUM_TABLES):
        values = truth * noise(len(inputs), 0.01, seed)
        fitted = fit_law(law, inputs, values, 1e-3)
        fitted = bootstrap_law(fitted, inputs, values, names, 1e-3, 50, [seed])
        found = fitted.parameters(fitted.replicates)
        found = np.stack([*(found[n] for n in parameters), fitted.predict_replicates(beyond)[:, 0]])
        for i, (value, replicates) in enumerate(zip(expected, found, strict=True)):
            within = interval(value, replicates, 0.9)
            held[i] += within.low <= value <= within.high
    assert (held >= FEWEST_HELD).all(), held
    # Nor are they so wide that they say nothing: the last table's exponent.
    width = np.ptp(np.quantile(fitted.parameters(fitted.replicates)["b"], [0.05, 0.95]))
    assert 0.01 < width / parameters["b"] < 0.8


def _of(law: Law, inputs: Floats, parameters: dict[str, float]) -> Floats:
    formula = curve if isinstance(law, ComputeLaw) else joint
    return formula(*inputs.T, **parameters)


def test_coverage_of_the_curve() -> None:
    check_coverage(ComputeLaw(), FLOPS, curve(FLOPS[:, 0], **CURVE), CURVE)


def test_coverage_of_the_joint_law() -> None:
    places = ladder()
    check_coverage(JointLaw(), places, joint(*places.T, **JOINT), JOINT)


def test_points_of_one_run_are_drawn_together() -> None:
    runs = np.repeat([f"trunk{i}" for i in range(8)], 3)
    weights = resample_runs(runs, FLOPS, 4, 30, [0])
    assert (weights.sum(axis=1) == 24).all()
    by_run = weights.reshape(30, 8, 3)
    assert (by_run == by_run[:, :, :1]).all()
    assert len(np.unique(weights, axis=0)) > 20


def test_a_seed_gives_the_same_draws() -> None:
    runs = np.arange(24).astype(str)
    first, again, other = (resample_runs(runs, FLOPS, 4, 5, [seed]) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_draws_can_always_be_fitted() -> None:
    flops = FLOPS[:6]
    for weights in resample_runs(np.arange(6).astype(str), flops, 4, 200, [0]):
        assert np.count_nonzero(weights) >= 4


def test_two_runs_cannot_be_resampled() -> None:
    with pytest.raises(TooFewPoints, match="1 runs are too few"):
        resample_runs(np.array(["a"] * 3), FLOPS[:3], 4, 10, [0])
