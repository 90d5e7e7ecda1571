"""Laws are found again in points that follow them."""

import numpy as np
import pytest

from recaption.common.errors import UserError
from tests.tools.scaling_laws.synthetic import CURVE, JOINT, curve, joint, ladder, noise
from tools.scaling_laws.bootstrap import resample_runs
from tools.scaling_laws.fitting import _minimize, fit_law, huber, normalise, refine
from tools.scaling_laws.laws import ComputeLaw, JointLaw

FLOPS = np.geomspace(1e15, 1e19, 24)[:, None]
DELTA = 1e-3


def test_points_without_noise_give_the_curve_exactly() -> None:
    parameters = fit_law(ComputeLaw(), FLOPS, curve(FLOPS[:, 0], **CURVE), DELTA).parameters()
    for name, value in CURVE.items():
        assert parameters[name] == pytest.approx(value, rel=0.02)


def test_points_without_noise_give_the_joint_law_exactly() -> None:
    places = ladder()
    parameters = fit_law(JointLaw(), places, joint(*places.T, **JOINT), DELTA).parameters()
    for name, value in JOINT.items():
        assert parameters[name] == pytest.approx(value, rel=0.02)


def test_an_outlier_does_not_move_the_fit() -> None:
    values = curve(FLOPS[:, 0], **CURVE)
    values[7] *= 2
    parameters = fit_law(ComputeLaw(), FLOPS, values, DELTA).parameters()
    assert parameters["b"] == pytest.approx(CURVE["b"], rel=0.05)


def test_terms_can_be_left_out() -> None:
    plain = {**CURVE, "E": 0.0, "C0": 0.0}
    law = ComputeLaw(has_floor=False, has_offset=False)
    fitted = fit_law(law, FLOPS, curve(FLOPS[:, 0], **plain), DELTA)
    parameters = fitted.parameters()
    assert (parameters["E"], parameters["C0"]) == (0, 0)
    assert parameters["b"] == pytest.approx(0.25, rel=1e-3)
    assert fitted.predict(np.array([[1e21]]))[0] == pytest.approx(curve(1e21, **plain), rel=1e-3)


def test_a_floor_that_is_not_there_is_none() -> None:
    fitted = fit_law(ComputeLaw(), FLOPS, curve(FLOPS[:, 0], **{**CURVE, "E": 0.0}), DELTA)
    assert fitted.parameters()["E"] < 0.01


def test_refined_resamplings_are_as_good_as_fits_of_their_own() -> None:
    """What L-BFGS finds for a resampling from where its refinement ended is no better."""
    values = curve(FLOPS[:, 0], **CURVE) * noise(len(FLOPS), 0.01, 1)
    fitted = fit_law(ComputeLaw(), FLOPS, values, DELTA)
    weights = resample_runs(np.arange(24).astype(str), FLOPS, 4, 12, [0])
    x, y = normalise(FLOPS, fitted.reference), np.log(values)
    law, start = ComputeLaw(), np.tile(fitted.theta, (12, 1))
    found = refine(law, start, x, y, weights, DELTA, fitted.bounds)
    for theta, weight in zip(found, weights, strict=True):
        drawn = np.repeat(np.arange(24), weight.astype(int))
        alone = _minimize(law, fitted.theta, x[drawn], y[drawn], DELTA, fitted.bounds)
        losses = [
            huber(law.predict_log(t, x[drawn])[0] - y[drawn], DELTA).sum() for t in (theta, alone)
        ]
        assert losses[0] <= losses[1] * 1.01


@pytest.mark.parametrize(
    ("flops", "values", "message"),
    [
        (FLOPS[:3], [3.0, 2.0, 1.0], "needs points at 6 places or more; there are 3"),
        (np.repeat(FLOPS[:3], 4, axis=0), np.arange(1.0, 13), "there are 3"),
        (np.full((8, 1), 1e15), np.arange(1.0, 9), r"flops is 1e\+15 in all 8 points"),
        (FLOPS, np.full(24, 0.7), "all 24 points have the same value 0.7"),
    ],
)
def test_points_that_no_law_can_be_fitted_to(
    flops: np.ndarray, values: list[float], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        fit_law(ComputeLaw(), flops, np.array(values), DELTA)


def test_a_joint_law_needs_three_lengths() -> None:
    places = ladder(num_sizes=6, num_lengths=2)
    with pytest.raises(UserError, match="needs 3 different samples or more; there are 2"):
        fit_law(JointLaw(), places, np.linspace(2, 1, 12), DELTA)


def test_a_joint_law_needs_several_sizes() -> None:
    places = ladder(num_sizes=1, num_lengths=9)
    with pytest.raises(UserError, match=r"params is 1e\+06 in all 9 points"):
        fit_law(JointLaw(), places, np.linspace(2, 1, 9), DELTA)
