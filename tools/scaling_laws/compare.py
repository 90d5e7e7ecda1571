"""Two methods at equal compute: by how much, how sure, and where they cross."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from recaption.common.errors import UserError
from tools.scaling_laws.bootstrap import Interval, interval
from tools.scaling_laws.laws import Floats

_NUM_PLACES = 41


@dataclass(frozen=True)
class Contender:
    """A method as it is compared.

    ``predict`` takes training FLOPs ``[n]`` and returns values ``[1 + r, n]``, by the fit and by
    each of its r replicates; ``flops`` are the smallest and largest of the points it is fitted to;
    ``points`` says which those are, ``front``, ``all``, or both where they are the same; ``notes``
    say how far its replicates can be believed.
    """

    name: str
    predict: Callable[[Floats], Floats]
    flops: tuple[float, float]
    points: frozenset[str] = frozenset({"all"})
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class OpenInterval:
    """A value with the interval around it, an end of which may not be known."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Crossing:
    """Where the better of the two changes.

    ``share`` of the replicates cross within the range, in the same direction; ``flops`` has the
    interval among those, none where there are none.
    """

    flops: OpenInterval
    share: float
    better_below: str


@dataclass(frozen=True)
class Multiplier:
    """How many ``times`` the compute of the first the second needs for what the first reaches.

    An end is None where the second reaches it beyond the compute that it was fitted to.
    """

    flops: float
    times: OpenInterval


@dataclass(frozen=True)
class Comparison:
    """``first`` against ``second`` over the compute that both cover.

    ``law`` is what they are compared by: ``curve``, or ``joint`` for L(N, D) at the best N and D.

    ``ratio`` is the loss or error of the first over that of the second, below 1 where the first is
    better, and ``difference`` the first minus the second, each with its interval at every
    ``flops``; ``probability`` is the share of replicates in which the first is better.
    ``mean_ratio`` is the geometric mean over the range, ``mean_probability`` how sure it is below
    1. ``trend`` is the ratio at the range's end over that at its beginning: below 1, the first
    scales better, and ``trend_probability`` says how sure that is. ``multipliers`` are at those
    ``flops`` at which the second reaches the first's value within its own compute. ``notes`` are
    those of the two fits that bear on the intervals.
    """

    first: str
    second: str
    target: str
    law: str
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
    multipliers: list[Multiplier]
    notes: list[str]


def compare_laws(
    first: Contender, second: Contender, target: str, law: str, level: float
) -> Comparison:
    """Compares two methods over the range that the points of both cover.

    Args:
        first, second: with as many replicates each, resampled independently.
        target: ``loss`` or ``error``.
        law: ``curve`` or ``joint``, as ``Comparison`` says.
        level: of the intervals, such as 0.9.

    Raises:
        UserError: the ranges do not overlap.
    """
    both = (first, second)
    low, high = max(c.flops[0] for c in both), min(c.flops[1] for c in both)
    if low >= high:
        told = " and ".join(f"{c.name} from {c.flops[0]:.2g} to {c.flops[1]:.2g}" for c in both)
        raise UserError(f"{told} FLOPs: there is no compute that both cover, to compare them at")
    flops = np.geomspace(low, high, _NUM_PLACES)
    first_values, second_values = first.predict(flops), second.predict(flops)
    differences = first_values - second_values
    log_ratios = np.log(first_values / second_values)
    means = log_ratios.mean(axis=1, keepdims=True)
    trends = log_ratios[:, -1:] - log_ratios[:, :1]
    return Comparison(
        first=first.name,
        second=second.name,
        target=target,
        law=law,
        flops=flops.tolist(),
        first_value=first_values[0].tolist(),
        second_value=second_values[0].tolist(),
        ratio=_intervals(np.exp(log_ratios), level),
        difference=_intervals(differences, level),
        probability=_share_below_zero(log_ratios[1:]),
        mean_ratio=_intervals(np.exp(means), level)[0],
        mean_probability=_share_below_zero(means[1:])[0],
        trend=_intervals(np.exp(trends), level)[0],
        trend_probability=_share_below_zero(trends[1:])[0],
        crossings=_crossings((first.name, second.name), flops, log_ratios, level),
        multipliers=_multipliers(second, flops, first_values, level),
        notes=[f"{c.name}: {note}" for c in both for note in c.notes],
    )


def first_middle_last(count: int) -> list[int]:
    """The few of ``count`` places that are shown to people."""
    return sorted({0, count // 2, count - 1}) if count else []


def _intervals(values: Floats, level: float) -> list[Interval]:
    """Of each column: the first row between the quantiles of the others."""
    return [interval(column[0], column[1:], level) for column in values.T]


def _share_below_zero(values: Floats) -> list[float]:
    """Of each column; equal counts half."""
    share: list[float] = ((values < 0) + 0.5 * (values == 0)).mean(axis=0).tolist()
    return share


def _crossings(
    names: tuple[str, str], flops: Floats, log_ratios: Floats, level: float
) -> list[Crossing]:
    log_ratio, log_ratios = log_ratios[0], log_ratios[1:]
    crossings = []
    x = np.log(flops)
    changes = [_sign_changes(row) for row in log_ratios]
    for i, j in _sign_changes(log_ratio):
        rising = log_ratio[i] < 0  # the first is better below
        alike = [
            [(at, to) for at, to in found if (row[at] < 0) == rising]
            for row, found in zip(log_ratios, changes, strict=True)
        ]
        places = [
            _root(x, row, *change)
            for row, found in zip(log_ratios, alike, strict=True)
            for change in found
        ]
        share = np.mean([bool(found) for found in alike])
        at = _root(x, log_ratio, i, j)
        flops_at = OpenInterval(float(np.exp(at)), None, None)
        if places:
            within = interval(np.exp(at), np.exp(places), level)
            flops_at = OpenInterval(within.value, within.low, within.high)
        crossings.append(Crossing(flops_at, float(share), names[0] if rising else names[1]))
    return crossings


def _multipliers(
    second: Contender, flops: Floats, first_values: Floats, level: float
) -> list[Multiplier]:
    """At those ``flops`` ``[n]`` where the second reaches the first's value within its range."""
    own = np.geomspace(*second.flops, 10 * _NUM_PLACES)
    # Values fall with compute: where they fall below the first's is where it is reached. Before the
    # range it is reached with less than any compute, behind it with more than any. An error of 1 is
    # reached by any.
    values = second.predict(own)
    needed = np.stack(
        [
            np.interp(-wanted, -reached, np.log(own), left=-np.inf, right=np.inf)
            for wanted, reached in zip(first_values, values, strict=True)
        ]
    )
    needed[first_values >= values[:, :1]] = -np.inf
    log_times = needed - np.log(flops)
    tail = (1 - level) / 2 * (len(log_times) - 2)
    ends = np.sort(log_times[1:], axis=0)[[int(tail), -1 - int(tail)]]
    return [
        Multiplier(float(at), OpenInterval(float(np.exp(value)), _finite(low), _finite(high)))
        for at, value, low, high in zip(flops, log_times[0], *ends, strict=True)
        if np.isfinite(value)
    ]


def _finite(log_value: float) -> float | None:
    return float(np.exp(log_value)) if np.isfinite(log_value) else None


def _sign_changes(values: Floats) -> list[tuple[int, int]]:
    """The places before and after each; what is 0 (two errors of 1) is between signs, or none."""
    places = np.flatnonzero(values)
    signs = np.signbit(values[places])
    changes = np.flatnonzero(signs[:-1] != signs[1:])
    return [(int(places[k]), int(places[k + 1])) for k in changes]


def _root(x: Floats, values: Floats, i: int, j: int) -> float:
    """Between the places i and j, on a straight line."""
    return float(x[i] - values[i] * (x[j] - x[i]) / (values[j] - values[i]))
