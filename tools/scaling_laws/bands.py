"""Where a fitted law lies along compute, to be drawn."""

import numpy as np

from tools.scaling_laws.fitting import FittedLaw
from tools.scaling_laws.front import optimal_places
from tools.scaling_laws.laws import Floats
from tools.scaling_laws.results import Band

_NUM_PLACES = 60
#: From the first to the last compute of a line that is worth drawing.
_LEAST_RANGE = 3.0
#: More lines than these cannot be told apart.
_MOST_SIZES = 6


def curve_band(fitted: FittedLaw, flops: Floats, level: float, budgets: list[float]) -> Band:
    """L(C) from the smallest compute of the points ``[n]`` to ten times the largest, or the largest
    budget."""
    places = np.geomspace(flops.min(), max(10 * flops.max(), *budgets, 0.0), _NUM_PLACES)
    return _band("compute", None, places, fitted.predict_all(places[:, None]), level)


def best_band(
    fitted: FittedLaw, k: float, flops: Floats, sizes: Floats, level: float, budgets: list[float]
) -> Band | None:
    """L(N, D) at the best N and D of each compute, where that N is one that was trained.

    Args:
        fitted: a ``JointLaw``.
        k: training FLOPs for each sample and unit of size.
        flops, sizes: of the points ``[n]``.
        level: of the interval, such as 0.9.
        budgets: training FLOPs up to which it is drawn, or ten times the largest of ``flops``.

    Returns:
        None where the best N is beyond the sizes trained nearly everywhere.
    """
    places = np.geomspace(flops.min(), max(10 * flops.max(), *budgets, 0.0), _NUM_PLACES)
    best, values = optimal_places(fitted, k, places)
    inside = (best[0, :, 0] >= sizes.min()) & (best[0, :, 0] <= sizes.max())
    if not inside.any() or np.ptp(np.log(places[inside])) < np.log(_LEAST_RANGE):
        return None
    return _band("best", None, places[inside], values[:, inside], level)


def size_bands(fitted: FittedLaw, flops: Floats, inputs: Floats, level: float) -> list[Band]:
    """L(N, D) of the sizes trained, each from the fewest to the most samples of its points.

    Args:
        fitted: a ``JointLaw``.
        flops: of the points ``[n]``.
        inputs: their sizes and samples ``[n, 2]``.
        level: of the intervals, such as 0.9.
    """
    sizes = np.unique(inputs[:, 0])
    if len(sizes) > _MOST_SIZES:
        sizes = sizes[np.linspace(0, len(sizes) - 1, _MOST_SIZES).round().astype(int)]
    bands = []
    for size in sizes:
        is_of_it = inputs[:, 0] == size
        of_sample = np.median(flops[is_of_it] / inputs[is_of_it, 1])
        least, most = (f(inputs[is_of_it, 1]) for f in (np.min, np.max))
        if least < most:
            samples = np.geomspace(least, most, _NUM_PLACES // 3)
            places = np.stack([np.full_like(samples, size), samples], axis=1)
            values = fitted.predict_all(places)
            bands.append(_band("size", float(size), of_sample * samples, values, level))
    return bands


def _band(at: str, size: float | None, flops: Floats, values: Floats, level: float) -> Band:
    """``values`` are ``[1 + r, n]``: by the fit, then by its replicates."""
    low, high = np.quantile(values[1:], [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Band(at, size, flops.tolist(), values[0].tolist(), low.tolist(), high.tolist())
