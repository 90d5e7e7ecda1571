"""Intervals by resampling runs: each replicate draws as many runs as there are, with replacement.

Points of one run (the cool-down branches of a trunk) share their noise, so they are drawn together.
Where there are too few trunks to draw from, see ``trunks.py``.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tools.scaling_laws.fitting import FittedLaw, TooFewPoints, huber, normalise, refine
from tools.scaling_laws.laws import Floats

_NUM_TRIES = 50


@dataclasses.dataclass(frozen=True)
class Interval:
    """A value with the interval around it that the resampled fits give."""

    value: float
    low: float
    high: float


def interval(value: float, replicates: Floats, level: float) -> Interval:
    """``value`` between the quantiles of ``replicates`` that hold ``level`` of them."""
    low, high = np.quantile(replicates, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high))


def resample_runs(
    runs: NDArray[np.str_],
    inputs: Floats,
    num_places: int,
    num_replicates: int,
    seed: Sequence[int],
) -> Floats:
    """How often each replicate counts each point, ``[r, n]``.

    Args:
        runs: the run of each point ``[n]``.
        inputs: ``[n, d]``; a draw with fewer than ``num_places`` different rows, or with a
            constant column, fits anything and is drawn again.

    Raises:
        TooFewPoints: there are too few runs for such draws.
    """
    rng = np.random.default_rng(seed)
    names, run_of_point = np.unique(runs, return_inverse=True)
    place = np.unique(inputs, axis=0, return_inverse=True)[1]
    weights = np.empty((0, len(runs)))
    for _ in range(_NUM_TRIES):
        draws = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), num_replicates)
        drawn = draws[:, run_of_point].astype(np.float64)
        good = [
            len(np.unique(place[row > 0])) >= num_places
            and bool(np.all(np.ptp(inputs[row > 0], axis=0) > 0))
            for row in drawn
        ]
        weights = np.concatenate([weights, drawn[good]])
        if len(weights) >= num_replicates:
            return weights[:num_replicates]
    raise TooFewPoints(
        f"{len(names)} runs are too few to resample: hardly a draw has points at {num_places} "
        "different places"
    )


def bootstrap_law(
    fitted: FittedLaw,
    inputs: Floats,
    values: Floats,
    runs: NDArray[np.str_],
    delta: float,
    num_replicates: int,
    seed: Sequence[int],
) -> FittedLaw:
    """``fitted`` with the parameters of ``num_replicates`` resampled fits."""
    weights = resample_runs(runs, inputs, fitted.law.num_parameters, num_replicates, seed)
    x, y = normalise(inputs, fitted.reference), np.log(values)
    return dataclasses.replace(fitted, replicates=refit(fitted, x, y, weights, delta))


def refit(fitted: FittedLaw, x: Floats, y: Floats, weights: Floats, delta: float) -> Floats:
    """The parameters ``[r, p]`` of fits to other weights ``[r, n]``, or other values ``[r, n]``.

    Each starts from the best optima of all points and keeps the best of what they lead to.
    """
    law = fitted.law
    found = np.stack(
        [
            refine(law, np.tile(start, (len(weights), 1)), x, y, weights, delta, fitted.bounds)
            for start in fitted.optima
        ]
    )
    losses = (weights * huber(law.predict_log(found, x)[0] - y, delta)).sum(axis=-1)
    return np.asarray(found[losses.argmin(axis=0), np.arange(len(weights))])
