"""Fits a law to points: Huber loss on logarithms, a grid of starts, L-BFGS.

As Hoffmann et al. 2022 (section D.3) do it. Their sum became a mean in the published fit, which
made L-BFGS stop early and the intervals far too narrow (Besiroglu et al. 2024, arXiv 2404.10102):
here it is a sum over delta, with tolerances to match.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from recaption.common.errors import UserError
from tools.scaling_laws.laws import Floats, Law

#: Best distinct optima of the grid that are polished, and that each resampled fit starts from.
_NUM_OPTIMA = 3
_NUM_ITERATIONS = 150
_SPARE_PLACES = 2
FEWEST_PLACES = 6
_FEWEST_VALUES = 3


class TooFewPoints(UserError):
    """A law with fewer parameters, or more points, would do."""


@dataclass(frozen=True)
class FittedLaw:
    """A law with its parameters, and the parameters of each resampled fit.

    ``theta`` is ``[p]``, ``replicates`` ``[r, p]`` (r = 0 before the bootstrap), ``optima``
    ``[o, p]`` the best distinct optima found, best first; ``inputs`` ``[n, d]`` are those of the
    points it was fitted to, ``residuals`` ``[n]`` log (measured / predicted) of them.
    """

    law: Law
    reference: Floats
    bounds: Floats
    theta: Floats
    optima: Floats
    inputs: Floats
    residuals: Floats
    replicates: Floats
    #: Of the logarithm of one more run by each replicate, ``[r]``; None: as ``residuals`` are.
    run_scatter: Floats | None = None
    #: No value is larger, whatever the law says: an error is a share.
    most: float = math.inf

    def predict(self, inputs: Floats) -> Floats:
        """Values ``[n]`` for inputs ``[n, d]`` in their own units."""
        return self.values(self.theta, normalise(inputs, self.reference))

    def predict_replicates(self, inputs: Floats) -> Floats:
        """Values ``[r, n]`` of each resampled fit."""
        return self.values(self.replicates, normalise(inputs, self.reference))

    def values(self, theta: Floats, x: Floats) -> Floats:
        """Values ``[..., n]`` by parameters ``[..., p]``; see ``Law.predict_log``."""
        return np.minimum(np.exp(self.law.predict_log(theta, x)[0]), self.most)

    def predict_all(self, inputs: Floats) -> Floats:
        """Values ``[1 + r, n]``: by the fit, then by each resampled fit."""
        return np.concatenate([self.predict(inputs)[None], self.predict_replicates(inputs)])

    def parameters(self, theta: Floats | None = None) -> dict[str, Floats]:
        """By name, as the formula has them; a floor or an offset at its least is 0."""
        theta = self.theta if theta is None else theta
        physical = self.law.physical(theta, self.reference)
        at_least = theta <= self.bounds[:, 0] + 1e-6
        for i, name in enumerate(self.law.names):
            if name in ("E", "C0"):
                physical[name] = np.where(at_least[..., i], 0.0, physical[name])
        return physical


def fit_law(
    law: Law, inputs: Floats, values: Floats, delta: float, most: float = math.inf
) -> FittedLaw:
    """The least sum of Huber losses of log residuals over a grid of starts.

    Args:
        inputs: ``[n, d]``, above zero.
        values: losses or errors ``[n]``, above zero.
        delta: where the Huber loss turns from quadratic to linear.
        most: that a value can be.

    Raises:
        TooFewPoints: see ``check_enough``.
        UserError: an input or the values are constant.
    """
    check_varies(law, inputs, values)
    check_enough(law, inputs)
    reference = np.exp(np.log(inputs).mean(axis=0))
    x, y = normalise(inputs, reference), np.log(values)
    bounds = law.bounds(x, y)
    starts = np.clip(law.starts(x, y), bounds[:, 0], bounds[:, 1])
    weights = np.ones((len(starts), len(y)))
    near = refine(law, starts, x, y, weights, delta, bounds)
    polished = np.array(
        [_minimize(law, theta, x, y, delta, bounds) for theta in _best(law, near, x, y, delta)]
    )
    optima = _best(law, polished, x, y, delta)
    residuals = y - law.predict_log(optima[0], x)[0]
    none = np.empty((0, len(law.names)))
    return FittedLaw(law, reference, bounds, optima[0], optima, inputs, residuals, none, most=most)


def check_varies(law: Law, inputs: Floats, values: Floats) -> None:
    """Raises: UserError: an input of ``law``, or what it should predict, is constant."""
    for name, column in zip(law.inputs, inputs.T, strict=True):
        if len(column) > 1 and np.ptp(column) == 0:
            raise UserError(
                f"{name} is {column[0]:.4g} in all {len(column)} points: {law.formula} cannot be "
                "fitted to a constant"
            )
    if len(values) > 1 and np.ptp(values) == 0:
        raise UserError(
            f"all {len(values)} points have the same value {values[0]:.4g}: nothing scales, so "
            "there is nothing to fit"
        )


def check_enough(law: Law, inputs: Floats) -> None:
    """Raises: TooFewPoints: ``law`` would go through the points, whatever they are.

    On tables of known laws with one point more than parameters, 90 % intervals held the truth
    half of the time; with two more, and three values of each input, nearly as often as they say.
    """
    needed = max(law.num_parameters + _SPARE_PLACES, FEWEST_PLACES)
    distinct = len(np.unique(inputs, axis=0))
    if distinct < needed:
        raise TooFewPoints(
            f"{law.formula} has {law.num_parameters} parameters and needs points at {needed} "
            f"places or more; there are {distinct}"
        )
    for name, column in zip(law.inputs, inputs.T, strict=True):
        if len(np.unique(column)) < _FEWEST_VALUES:
            raise TooFewPoints(
                f"{law.formula} needs {_FEWEST_VALUES} different {name} or more; there are "
                f"{len(np.unique(column))}"
            )


def normalise(inputs: Floats, reference: Floats) -> Floats:
    return np.asarray(np.log(inputs) - np.log(reference), dtype=np.float64)


def huber(residuals: Floats, delta: float) -> Floats:
    """Huber's loss over delta: |r| - delta / 2 far from zero."""
    size = np.abs(residuals)
    return np.where(size <= delta, size**2 / (2 * delta), size - delta / 2)


def refine(
    law: Law, theta: Floats, x: Floats, y: Floats, weights: Floats, delta: float, bounds: Floats
) -> Floats:
    """Many fits of the same points at once: Levenberg-Marquardt on reweighted squares.

    Each row of ``theta`` ``[m, p]`` is a start of its own and each row of ``weights`` ``[m, n]``
    says how often its fit counts each point; ``y`` is ``[n]``, or ``[m, n]`` where each has values
    of its own. The weight of a residual is that of Huber's loss, min(1, delta / |r|). Five hundred
    of these cost as much as twenty fits by L-BFGS.
    """
    y = np.broadcast_to(y, weights.shape)
    for step_delta in (max(delta, 0.01), delta):
        theta = _refine(law, theta, x, y, weights, step_delta, bounds)
    return theta


def _refine(
    law: Law, theta: Floats, x: Floats, y: Floats, weights: Floats, delta: float, bounds: Floats
) -> Floats:
    theta = theta.copy()
    rows = np.arange(len(theta))  # those that still gain
    damping = np.full(len(theta), 1e-3)
    predicted, jacobian = law.predict_log(theta, x)
    loss = (weights * huber(predicted - y, delta)).sum(axis=1)
    for _ in range(_NUM_ITERATIONS):
        step = _step(theta[rows], predicted - y, jacobian, weights[rows], damping, delta, bounds)
        tried = np.clip(theta[rows] - step, bounds[:, 0], bounds[:, 1])
        tried_predicted, tried_jacobian = law.predict_log(tried, x)
        tried_loss = (weights[rows] * huber(tried_predicted - y, delta)).sum(axis=1)
        better = tried_loss < loss
        theta[rows[better]] = tried[better]
        predicted[better], jacobian[better] = tried_predicted[better], tried_jacobian[better]
        damping = np.where(better, damping / 4, damping * 5)
        gains = np.where(better, tried_loss < loss * (1 - 1e-6), damping < 1e6)
        loss = np.where(better, tried_loss, loss)
        rows, damping, loss = rows[gains], damping[gains], loss[gains]
        predicted, jacobian, y = predicted[gains], jacobian[gains], y[gains]
        if not len(rows):
            break
    return theta


def _step(
    theta: Floats,
    residuals: Floats,
    jacobian: Floats,
    weights: Floats,
    damping: Floats,
    delta: float,
    bounds: Floats,
) -> Floats:
    """Of Levenberg and Marquardt, ``[m, p]``; what stands at a bound and would go beyond stays."""
    weighted = jacobian * (weights / np.maximum(np.abs(residuals), delta))[..., None]
    gradient = np.einsum("mnp,mn->mp", weighted, residuals)
    hessian = weighted.swapaxes(1, 2) @ jacobian
    at_least, at_most = theta <= bounds[:, 0], theta >= bounds[:, 1]
    held = (at_least & (gradient >= 0)) | (at_most & (gradient <= 0))
    gradient = np.where(held, 0.0, gradient)
    hessian = np.where(held[:, :, None] | held[:, None, :], 0.0, hessian)
    diagonal = np.einsum("mpp->mp", hessian)  # a view
    least = 1e-12 * diagonal.max(axis=1, keepdims=True) + 1e-300
    diagonal[...] = np.where(held, 1.0, diagonal * (1 + damping[:, None]) + least)
    return np.asarray(np.linalg.solve(hessian, gradient[..., None])[..., 0])


def _minimize(
    law: Law, theta: Floats, x: Floats, y: Floats, delta: float, bounds: Floats
) -> Floats:
    def loss_and_gradient(theta: Floats) -> tuple[float, Floats]:
        predicted, jacobian = law.predict_log(theta, x)
        residuals = predicted - y
        slope = np.clip(residuals / delta, -1, 1)
        return float(huber(residuals, delta).sum()), slope @ jacobian

    options = {"maxiter": 2000, "ftol": 1e-13, "gtol": 1e-8, "maxcor": 20}
    found = minimize(
        loss_and_gradient, theta, jac=True, method="L-BFGS-B", bounds=bounds, options=options
    )
    return np.asarray(found.x)


def _best(law: Law, theta: Floats, x: Floats, y: Floats, delta: float) -> Floats:
    """The few best rows of ``theta`` whose predictions differ, best first."""
    predicted = law.predict_log(theta, x)[0]
    kept: list[int] = []
    for i in np.argsort(huber(predicted - y, delta).sum(axis=1)):
        if all(np.abs(predicted[i] - predicted[j]).max() > delta for j in kept):
            kept.append(int(i))
    return theta[kept[:_NUM_OPTIMA]]
