"""The laws against their formulas and against finite differences."""

import numpy as np
import pytest

from tests.tools.scaling_laws.synthetic import curve, joint
from tools.scaling_laws.laws import ComputeLaw, JointLaw, Law

CURVE_THETA = np.array([-1.0, 0.2, 0.3, -2.0])
JOINT_THETA = np.array([-1.0, 0.2, 0.3, -0.4, 0.5])


@pytest.mark.parametrize(
    ("law", "theta", "x"),
    [
        (ComputeLaw(), CURVE_THETA, np.linspace(-4, 4, 7)[:, None]),
        (JointLaw(), JOINT_THETA, np.random.default_rng(0).uniform(-3, 3, (7, 2))),
    ],
)
def test_jacobian(law: Law, theta: np.ndarray, x: np.ndarray) -> None:
    jacobian = law.predict_log(theta, x)[1]
    for i, step in enumerate(1e-6 * np.eye(len(theta))):
        slope = (law.predict_log(theta + step, x)[0] - law.predict_log(theta - step, x)[0]) / 2e-6
        np.testing.assert_allclose(jacobian[:, i], slope, atol=1e-8)


def test_curve_is_its_formula() -> None:
    flops, reference = np.geomspace(1e14, 1e19, 9), np.array([3e16])
    logs = ComputeLaw().predict_log(CURVE_THETA, np.log(flops / reference)[:, None])[0]
    parameters = ComputeLaw().physical(CURVE_THETA, reference)
    np.testing.assert_allclose(np.exp(logs), curve(flops, **parameters), rtol=1e-12)


def test_joint_is_its_formula() -> None:
    places, reference = np.array([[1e6, 1e9], [3e8, 1e7], [2e7, 2e8]]), np.array([3e7, 1e8])
    logs = JointLaw().predict_log(JOINT_THETA, np.log(places / reference))[0]
    parameters = JointLaw().physical(JOINT_THETA, reference)
    np.testing.assert_allclose(np.exp(logs), joint(*places.T, **parameters), rtol=1e-12)


def test_many_parameters_at_once() -> None:
    thetas = CURVE_THETA + np.random.default_rng(0).normal(0, 0.1, (5, 4))
    x = np.linspace(-4, 4, 7)[:, None]
    together = ComputeLaw().predict_log(thetas, x)
    for i, theta in enumerate(thetas):
        for all_of_them, alone in zip(together, ComputeLaw().predict_log(theta, x), strict=True):
            np.testing.assert_array_equal(all_of_them[i], alone)
