"""The Pareto front of runs, and the size and samples that use a budget best."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tools.scaling_laws.bootstrap import Interval, interval
from tools.scaling_laws.fitting import FittedLaw
from tools.scaling_laws.laws import Floats

_FARTHEST = 200.0
#: Of the largest and the smallest that was trained.
_SLACK = 1e-6


def pareto_front(flops: Floats, values: Floats, bins_per_decade: float) -> NDArray[np.bool_]:
    """Which points are on the front: the best of each bin of compute, if no cheaper is as good.

    Args:
        flops: ``[n]``.
        values: losses or errors ``[n]``; smaller is better.
        bins_per_decade: bins of equal width in log compute, from the cheapest point on.
    """
    decades = np.log10(flops / flops.min())
    bins = np.floor(decades * bins_per_decade + 1e-9)
    on_front = np.zeros(len(flops), dtype=bool)
    best = np.inf
    for number in np.unique(bins):
        members = np.flatnonzero(bins == number)
        winner = members[np.argmin(values[members])]
        if values[winner] < best:
            on_front[winner] = True
            best = values[winner]
    return on_front


@dataclass(frozen=True)
class ComputePerSample:
    """k in C = k N D: the median over points, and the largest k over the smallest."""

    k: float
    spread: float


def compute_per_sample(flops: Floats, sizes: Floats, samples: Floats) -> ComputePerSample:
    """k from the table itself. It is not constant where sizes differ in more than width."""
    k = flops / (sizes * samples)
    return ComputePerSample(float(np.median(k)), float(k.max() / k.min()))


@dataclass(frozen=True)
class Optimum:
    """What a budget is used best for, by L(N, D) and C = k N D.

    ``untried`` says which of them, ``size`` or ``samples``, no run has had so small or so large.
    """

    flops: float
    size: Interval
    samples: Interval
    value: Interval
    untried: list[str]


def compute_optimal(
    fitted: FittedLaw, k: float, trained: Floats, budget: float, level: float
) -> Optimum:
    """The least L(N, D) with k N D = ``budget``.

    Args:
        fitted: a ``JointLaw`` with its replicates.
        k: training FLOPs for each sample and each unit of size.
        trained: sizes and samples of the runs ``[n, 2]``.
        budget: training FLOPs.
        level: of the intervals, such as 0.9.
    """
    places, values = optimal_places(fitted, k, np.array([budget]))
    size, samples = np.moveaxis(places[:, 0], -1, 0)
    ends = trained.min(axis=0) * (1 - _SLACK), trained.max(axis=0) * (1 + _SLACK)
    is_tried = (ends[0] <= places[0, 0]) & (places[0, 0] <= ends[1])
    return Optimum(
        budget,
        interval(size[0], size[1:], level),
        interval(samples[0], samples[1:], level),
        interval(values[0, 0], values[1:, 0], level),
        [name for name, tried in zip(("size", "samples"), is_tried, strict=True) if not tried],
    )


def optimal_places(fitted: FittedLaw, k: float, budgets: Floats) -> tuple[Floats, Floats]:
    """The best sizes and samples ``[1 + r, n, 2]`` for budgets ``[n]``, and the values there.

    The first row is by the fit, the others by its replicates. In closed form, as Hoffmann et al.
    2022 have it in eq. 4: N = G (C / k)^(b / (a + b)), D = (C / k)^(a / (a + b)) / G with
    G = (a A / (b B))^(1 / (a + b)).
    """
    theta = np.concatenate([fitted.theta[None], fitted.replicates])
    _, log_a, a, log_b, b = (theta[:, i, None] for i in range(5))
    # In logarithms over the reference, where N and D multiply to exp(total).
    total = np.log(budgets) - np.log(k) - np.log(fitted.reference).sum()
    size = (np.log(a) - np.log(b) + log_a - log_b + b * total) / (a + b)
    # Fits with next to no slope have their optimum beyond what a float holds.
    size = np.clip(size, -_FARTHEST, _FARTHEST)
    x = np.stack([size, total - size], axis=-1)
    return np.exp(x) * fitted.reference, fitted.values(theta, x)


def optimal_exponents(fitted: FittedLaw, level: float) -> dict[str, Interval]:
    """How the optimal size and samples grow with compute: N as C^(b/(a+b)), D as C^(a/(a+b))."""
    theta = np.concatenate([fitted.theta[None], fitted.replicates])
    share = theta[:, 4] / (theta[:, 2] + theta[:, 4])
    return {
        "size": interval(share[0], share[1:], level),
        "samples": interval(1 - share[0], 1 - share[1:], level),
    }
