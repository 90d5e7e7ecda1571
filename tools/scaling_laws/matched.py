"""Two methods run against run: the same size, the same samples, the same seed, and no law.

What a seed gives a trunk is in all of its branches, so a pair of trunks is one observation: its
branches are averaged, or subtracted, before the scatter between pairs gives an interval of
Student's t. Of runs without trunks those of one model and seed are such a pair. It does not depend
on how a law bends; it says nothing of compute between the runs.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from tools.scaling_laws.bootstrap import Interval
from tools.scaling_laws.laws import Floats
from tools.scaling_laws.table import Table

#: Of sizes that count as the same, and of samples.
_SAME_SIZE, _SAME_SAMPLES = 0.1, 0.01
_FEWEST_PAIRS = 3
#: Of a mean of logarithms: made tables have none.
_LEAST_ERROR = 1e-12
#: What tells a trunk from the others of its table.
_Trunk = tuple[str, ...]


@dataclass(frozen=True)
class MatchedLength:
    """The ratio of the first to the second in runs of about so many ``samples``."""

    samples: float
    num_pairs: int
    ratio: Interval


@dataclass(frozen=True)
class Matched:
    """``first`` over ``second`` in runs of one size and length, below 1 where the first is better.

    ``ratio`` is the geometric mean over pairs of trunks, ``trend`` what it changes by from the
    shortest to the longest run of a trunk: below 1, the first gains more by more samples, and
    ``trend_probability`` says how sure that is. ``flops_ratio``, the geometric mean too, is that of
    their FLOPs. ``num_unmatched`` rows of the two have no like, or one that is matched already.
    """

    first: str
    second: str
    target: str
    num_pairs: int
    num_unmatched: int
    flops_ratio: float
    ratio: Interval
    trend: Interval
    trend_probability: float
    lengths: list[MatchedLength]


def match_runs(
    names: tuple[str, str], first: Table, second: Table, by: str, target: str, level: float
) -> Matched | None:
    """Compares what has its like; None where fewer than three pairs of trunks of two lengths have.

    Args:
        names: of the two methods.
        first, second: their rows, held-out ones too.
        by: the column that parts them; others, such as the seed, must be the same in both.
        target: ``loss`` or ``error``.
        level: of the intervals, such as 0.9.
    """
    if not all({"params", "samples"} <= table.numbers.keys() for table in (first, second)):
        return None
    # Of each pair of trunks: samples, log ratio of the target and of FLOPs, of each length.
    pairs: dict[tuple[_Trunk, _Trunk], list[tuple[float, float, float]]] = defaultdict(list)
    alike = _alike(first, second, by)
    trunks = _trunks(first), _trunks(second)
    for i, j in alike:
        ratio, flops = (
            float(first.numbers[name][i] / second.numbers[name][j])
            if second.numbers[name][j]
            else 0
            for name in (target, "flops")
        )
        if ratio > 0:  # neither is missing or perfect
            place = float(first.numbers["samples"][i]), float(np.log(ratio)), float(np.log(flops))
            pairs[trunks[0][i], trunks[1][j]].append(place)
    several = [np.array(sorted(pair)) for pair in pairs.values() if len(pair) > 1]
    if len(several) < _FEWEST_PAIRS:
        return None
    trends = np.array([pair[-1, 1] - pair[0, 1] for pair in several])
    trend_error = max(trends.std(ddof=1) / np.sqrt(len(trends)), _LEAST_ERROR)
    return Matched(
        first=names[0],
        second=names[1],
        target=target,
        num_pairs=len(several),
        num_unmatched=len(first) + len(second) - 2 * len(alike),
        flops_ratio=float(np.exp(np.mean([pair[:, 2].mean() for pair in several]))),
        ratio=_student(np.array([pair[:, 1].mean() for pair in several]), level),
        trend=_student(trends, level),
        trend_probability=float(student.cdf(-trends.mean() / trend_error, len(trends) - 1)),
        lengths=_lengths(several, level),
    )


def _alike(first: Table, second: Table, by: str) -> list[tuple[int, int]]:
    """Rows of the two that are nearest to each other in size, of one length and seed."""
    log_sizes = np.log(first.numbers["params"])[:, None] - np.log(second.numbers["params"])
    log_samples = np.log(first.numbers["samples"])[:, None] - np.log(second.numbers["samples"])
    distances = np.where(np.abs(log_samples) < _SAME_SAMPLES, np.abs(log_sizes), np.inf)
    for column in {"seed", "data", "method"} - {by}:
        if column in first.texts:
            same = np.equal.outer(np.array(first.texts[column]), np.array(second.texts[column]))
            distances = np.where(same, distances, np.inf)
    distances = np.where(distances < _SAME_SIZE, distances, np.inf)
    return [
        (i, j)
        for i, j in enumerate(distances.argmin(axis=1).tolist())
        if np.isfinite(distances[i, j]) and distances[:, j].argmin() == i
    ]


def _trunks(table: Table) -> list[_Trunk]:
    """What the rows of one trunk have in common; of runs by themselves those of one model and seed
    on one set, and without a model the row alone."""
    runs, models = (table.texts.get(name, [""] * len(table)) for name in ("run", "model"))
    num_rows = Counter(runs)
    alike = [table.texts[name] for name in ("seed", "data", "method") if name in table.texts]
    trunks: list[_Trunk] = []
    for row, (run, model) in enumerate(zip(runs, models, strict=True)):
        if run and (num_rows[run] > 1 or not model):
            trunks.append(("run", run))
        elif model:
            trunks.append(("model", model, *(column[row] for column in alike)))
        else:
            trunks.append(("row", str(row)))
    return trunks


def _lengths(pairs: list[Floats], level: float) -> list[MatchedLength]:
    places = np.concatenate(pairs)
    places = places[places[:, 0].argsort()]
    starts = np.flatnonzero(np.diff(np.log(places[:, 0])) > _SAME_SAMPLES) + 1
    return [
        MatchedLength(float(part[0, 0]), len(part), _student(part[:, 1], level))
        for part in np.split(places, starts)
        if len(part) >= _FEWEST_PAIRS
    ]


def _student(log_ratios: Floats, level: float) -> Interval:
    """The geometric mean with its interval."""
    mean, count = log_ratios.mean(), len(log_ratios)
    reach = student.ppf((1 + level) / 2, count - 1) * log_ratios.std(ddof=1) / np.sqrt(count)
    low, value, high = np.exp([mean - reach, mean, mean + reach]).tolist()
    return Interval(value, low, high)
