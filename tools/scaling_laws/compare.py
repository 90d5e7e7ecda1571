"""Two methods at equal compute: by how much, how sure, and where they cross."""

from dataclasses import dataclass

import numpy as np

from recaption.common.errors import UserError
from tools.scaling_laws.bootstrap import Interval, interval
from tools.scaling_laws.fitting import FittedLaw
from tools.scaling_laws.laws import Floats

_NUM_PLACES = 41


@dataclass(frozen=True)
class Crossing:
    """Where the better of the two changes.

    ``share`` of the resampled fits cross within the range, in the same direction; ``flops`` is the
    interval among those.
    """

    flops: Interval
    share: float
    better_below: str


@dataclass(frozen=True)
class Comparison:
    """``first`` against ``second`` by their laws of compute, over the compute that both cover.

    ``ratio`` is the loss or error of the first over that of the second, below 1 where the first is
    better, and ``difference`` the first minus the second, each with its interval at every
    ``flops``; ``probability`` is the share of resampled fits in which the first is better.
    ``mean_ratio`` is the geometric mean over the range, ``mean_probability`` how sure it is below
    1. ``trend`` is the ratio at the range's end over that at its beginning: below 1, the first
    scales better, and ``trend_probability`` says how sure that is.
    """

    first: str
    second: str
    target: str
    flops: list[float]
    first_value: list[float]
    second_value: list[float]
    ratio: list[Interval]
    difference: list[Interval]
    probability: list[float]
    mean_ratio: Interval
    mean_probability: float
    trend: Interval
    trend_probability: float
    crossings: list[Crossing]


def compare_laws(
    names: tuple[str, str],
    fitted: tuple[FittedLaw, FittedLaw],
    ranges: tuple[tuple[float, float], tuple[float, float]],
    target: str,
    level: float,
) -> Comparison:
    """Compares two laws of compute over the range that the points of both cover.

    Args:
        names: of the two methods.
        fitted: their laws with as many replicates each, resampled independently.
        ranges: smallest and largest training FLOPs of each one's points.
        target: ``loss`` or ``error``.
        level: of the intervals, such as 0.9.

    Raises:
        UserError: the ranges do not overlap.
    """
    low, high = max(r[0] for r in ranges), min(r[1] for r in ranges)
    if low >= high:
        told = " and ".join(
            f"{name} from {r[0]:.2g} to {r[1]:.2g}" for name, r in zip(names, ranges, strict=True)
        )
        raise UserError(f"{told} FLOPs: there is no compute that both cover, to compare them at")
    flops = np.geomspace(low, high, _NUM_PLACES)
    first, second = (law.predict(flops[:, None]) for law in fitted)
    first_replicates, second_replicates = (law.predict_replicates(flops[:, None]) for law in fitted)
    log_ratio = np.log(first / second)
    log_ratios = np.log(first_replicates / second_replicates)
    trend, trends = log_ratio[-1] - log_ratio[0], log_ratios[:, -1] - log_ratios[:, 0]
    differences = first_replicates - second_replicates
    return Comparison(
        first=names[0],
        second=names[1],
        target=target,
        flops=flops.tolist(),
        first_value=first.tolist(),
        second_value=second.tolist(),
        ratio=_intervals(first / second, np.exp(log_ratios), level),
        difference=_intervals(first - second, differences, level),
        probability=_share_below_zero(log_ratios),
        mean_ratio=interval(np.exp(log_ratio.mean()), np.exp(log_ratios.mean(axis=1)), level),
        mean_probability=_share_below_zero(log_ratios.mean(axis=1, keepdims=True))[0],
        trend=interval(np.exp(trend), np.exp(trends), level),
        trend_probability=_share_below_zero(trends[:, None])[0],
        crossings=_crossings(names, flops, log_ratio, log_ratios, level),
    )


def _intervals(values: Floats, replicates: Floats, level: float) -> list[Interval]:
    return [interval(v, r, level) for v, r in zip(values, replicates.T, strict=True)]


def _share_below_zero(values: Floats) -> list[float]:
    """Of each column; equal counts half."""
    share: list[float] = ((values < 0) + 0.5 * (values == 0)).mean(axis=0).tolist()
    return share


def _crossings(
    names: tuple[str, str], flops: Floats, log_ratio: Floats, log_ratios: Floats, level: float
) -> list[Crossing]:
    crossings = []
    x = np.log(flops)
    for i in _sign_changes(log_ratio):
        rising = log_ratio[i] < 0  # the first is better below
        places = [
            _root(x, row, j)
            for row in log_ratios
            for j in _sign_changes(row)
            if (row[j] < 0) == rising
        ]
        share = np.mean([any((r[j] < 0) == rising for j in _sign_changes(r)) for r in log_ratios])
        at = _root(x, log_ratio, i)
        flops_at = interval(np.exp(at), np.exp(places or [at]), level)
        crossings.append(Crossing(flops_at, float(share), names[0] if rising else names[1]))
    return crossings


def _sign_changes(values: Floats) -> list[int]:
    return np.flatnonzero(np.signbit(values[:-1]) != np.signbit(values[1:])).tolist()


def _root(x: Floats, values: Floats, i: int) -> float:
    """Between the places i and i + 1, on a straight line."""
    return float(x[i] - values[i] * (x[i + 1] - x[i]) / (values[i + 1] - values[i]))
