"""Intervals where a few trunks have several branches: fits to runs that are simulated.

A handful of trunks is no sample to draw from, and their branches are not independent: what its seed
gave a trunk shifts all of them. So the scatter between trunks and that between the branches of one
are estimated from the residuals, and each replicate is fitted to the law plus such scatter. How
little a few trunks say of their scatter is part of it: each replicate has variances of its own, the
estimate times its degrees of freedom over a draw of chi-square, so that the intervals are those of
Student's t where a law is linear.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tools.scaling_laws.bootstrap import refit
from tools.scaling_laws.fitting import FittedLaw, normalise
from tools.scaling_laws.laws import Floats

#: The shifts of so many trunks the fit must leave in the residuals, to tell their scatter.
_LEAST_TRUNKS = 0.5
#: Of a logarithm: a draw of chi-square near 0 gives any variance, and no float its exponential.
_LARGEST_VARIANCE = 1.0


@dataclass(frozen=True)
class Scatter:
    """Standard deviations of the logarithm of values around a law.

    ``trunks`` is that of the means of trunks, to which their branches' own scatter adds; each
    ``freedom`` is the number of degrees of freedom that the estimate has.
    """

    trunks: float
    branches: float
    trunks_freedom: float
    branches_freedom: float


def estimate_scatter(fitted: FittedLaw, inputs: Floats, runs: NDArray[np.str_]) -> Scatter | None:
    """From the squares of the residuals of trunks' means, and of branches around these.

    As of a linear model with random effects, by moments; the law is linear around its fit, and a
    parameter at its bound is none.

    Args:
        fitted: the law, with the residuals of ``inputs``.
        inputs: of the points ``[n, d]``.
        runs: the trunk of each point ``[n]``.

    Returns:
        None where the law bends through the means of so few trunks, whatever they are.
    """
    theta, bounds = fitted.theta, fitted.bounds
    is_free = (theta > bounds[:, 0] + 1e-6) & (theta < bounds[:, 1] - 1e-6)
    x = normalise(inputs, fitted.reference)
    jacobian = fitted.law.predict_log(theta, x)[1][:, is_free]
    jacobian = jacobian / np.maximum(np.linalg.norm(jacobian, axis=0), 1e-12)
    left = np.eye(len(x)) - jacobian @ np.linalg.pinv(jacobian, rcond=1e-6)  # by a fit, of noise
    members, means = _trunks(runs)[1:]
    residuals = left @ fitted.residuals
    of_means = means @ residuals
    # How much of a trunk's shift stands in the means, and in what is around them.
    in_means = means @ left @ members
    around = left @ members - in_means
    seen = in_means.T @ in_means
    if np.trace(seen) * members.shape[1] < _LEAST_TRUNKS * len(x):
        return None
    expected = np.array(
        [
            [np.trace(seen), np.sum(means * left)],
            [np.sum(around**2), np.trace(left) - np.sum(means * left)],
        ]
    )
    squares = np.array([of_means @ of_means, np.sum((residuals - of_means) ** 2)])
    branches = np.linalg.lstsq(expected, squares, rcond=None)[0][1]
    return Scatter(
        trunks=float(np.sqrt(squares[0] / expected[0, 0])),
        branches=float(np.sqrt(max(branches, 0.0))),
        trunks_freedom=float(np.trace(seen) ** 2 / np.sum(seen**2)),
        branches_freedom=float(max(expected[1, 1], 1.0)),
    )


def simulate_law(
    fitted: FittedLaw,
    inputs: Floats,
    runs: NDArray[np.str_],
    scatter: Scatter,
    delta: float,
    num_replicates: int,
    seed: Sequence[int],
) -> FittedLaw:
    """``fitted`` with the parameters of fits to ``num_replicates`` simulated sets of runs."""
    rng = np.random.default_rng(seed)
    trunk, members, means = _trunks(runs)
    num_points, num_trunks = members.shape
    of_trunks, of_branches = (
        np.minimum(deviation**2 * free / rng.chisquare(free, num_replicates), _LARGEST_VARIANCE)
        for deviation, free in (
            (scatter.trunks, scatter.trunks_freedom),
            (scatter.branches, scatter.branches_freedom),
        )
    )
    of_mean = of_branches * num_trunks / num_points  # what branches alone give a trunk's mean
    of_trunks = np.maximum(of_trunks, of_mean)
    shifts = np.sqrt(of_trunks)[:, None] * rng.standard_normal((num_replicates, num_trunks))
    own = np.sqrt(of_branches)[:, None] * rng.standard_normal((num_replicates, num_points))
    x = normalise(inputs, fitted.reference)
    y = fitted.law.predict_log(fitted.theta, x)[0] + shifts[:, trunk] + own - own @ means
    return dataclasses.replace(
        fitted,
        replicates=refit(fitted, x, y, np.ones_like(y), delta),
        run_scatter=np.sqrt(of_trunks - of_mean + of_branches),
    )


def _trunks(runs: NDArray[np.str_]) -> tuple[NDArray[np.intp], Floats, Floats]:
    """The number of each point's trunk ``[n]``, whether it is of each ``[n, g]``, and the matrix
    ``[n, n]`` that puts the mean of its trunk in a point's place."""
    names, trunk = np.unique(runs, return_inverse=True)
    members = np.eye(len(names))[trunk]
    return trunk, members, members @ (members / members.sum(axis=0)).T
