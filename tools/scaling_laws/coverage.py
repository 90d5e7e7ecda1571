"""``python -m tools.scaling_laws coverage [studies=[trunks]] [num_tables=40] [--json]``

How often the intervals of ``fit`` hold the truth: makes tables of known laws with known scatter,
fits them as ``fit`` does, and counts. The figures of docs/scaling_laws.md are its.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from recaption.common.config import check_at_least, check_choice, load_config, print_json
from recaption.common.errors import UserError
from recaption.common.progress import Progress
from tools.scaling_laws.bootstrap import Interval, interval
from tools.scaling_laws.compare import Contender, compare_laws
from tools.scaling_laws.group import FitConfig, fit_group
from tools.scaling_laws.laws import Floats
from tools.scaling_laws.made import CURVE, JOINT, curve, joint, ladder, noise, trunk_noise
from tools.scaling_laws.results import LawFit
from tools.scaling_laws.table import Table

_LEVEL = 0.9
#: Training FLOPs for each sample and unit of size.
_K = 6.0
#: Of the largest compute: where values are looked at.
_TIMES = (1.0, 10.0)
_TRUNKS, _BRANCHES = 0.02, 0.005
#: What an interval is of, and whether it holds the truth.
_Held = Iterator[tuple[str, bool]]


@dataclass
class CoverageConfig:
    """What to try."""

    #: runs, few_runs, trunks, trunks_unknown, methods; all by default
    studies: list[str] = field(default_factory=list)
    num_tables: int = 100  #: of each study
    num_replicates: int = 500  #: resamplings or simulations of each fit
    seed: int = 0  #: of the first table


def main(argv: list[str]) -> None:
    config = load_config(CoverageConfig, argv, __doc__)
    found = measure_coverage(config)
    for study, shares in found.items():
        print(f"{study}: {_STUDIES[study][0]}")
        for name, (held, count) in shares.items():
            print(f"  {held / count:4.0%} of {count}: {name}")
    print_json(argv, found)


def measure_coverage(config: CoverageConfig) -> dict[str, dict[str, tuple[int, int]]]:
    """By study and what an interval is of: how many held the truth, of how many."""
    for study in config.studies:
        check_choice("studies", study, tuple(_STUDIES))
    check_at_least(1, {"num_tables": config.num_tables})
    check_at_least(20, {"num_replicates": config.num_replicates})
    found = {}
    studies = config.studies or list(_STUDIES)
    with Progress(len(studies) * config.num_tables, "tables", "trying") as progress:
        for study in studies:
            held: Counter[str] = Counter()
            count: Counter[str] = Counter()
            for number in range(config.num_tables):
                seed = config.seed + 2 * number  # of a second method, one more
                for name, is_held in _STUDIES[study][1](config.num_replicates, seed):
                    held[name] += bool(is_held)
                    count[name] += 1
                progress.advance(note=study)
            found[study] = {name: (held[name], count[name]) for name in count}
    return found


def _runs(num_replicates: int, seed: int) -> _Held:
    yield from _single(num_replicates, seed, ladder(), 0.01)


def _few_runs(num_replicates: int, seed: int) -> _Held:
    yield from _single(num_replicates, seed, ladder(4, 3), 0.02)


def _single(num_replicates: int, seed: int, places: Floats, scatter: float) -> _Held:
    factors = noise(len(places), scatter, seed)
    flops = np.geomspace(1e15, 1e19, len(places))
    table = _table(places, curve(flops, **CURVE) * factors, flops=flops)
    law, contender = _fit(table, "curve", num_replicates, seed)
    yield from _parameters(law, CURVE)
    yield from _values(contender, flops.max(), lambda at: curve(at, **CURVE))
    law, contender = _fit(
        _table(places, joint(*places.T, **JOINT) * factors), "joint", num_replicates, seed
    )
    yield from _parameters(law, JOINT)
    yield from _values(contender, _K * places.prod(axis=1).max(), _best)


def _trunks(num_replicates: int, seed: int) -> _Held:
    yield from _branches(num_replicates, seed, has_runs=True)


def _trunks_unknown(num_replicates: int, seed: int) -> _Held:
    yield from _branches(num_replicates, seed, has_runs=False)


def _branches(num_replicates: int, seed: int, has_runs: bool) -> _Held:
    places = ladder(4, 3)
    flops = _K * places.prod(axis=1)
    trunks = [f"trunk{i // 3}" for i in range(12)] if has_runs else None
    tables = [
        _table(places, joint(*places.T, **JOINT) * _of_trunks(seed + i), trunks) for i in (0, 1)
    ]
    law, contender = _fit(tables[0], "joint", num_replicates, seed)
    yield from _parameters(law, {name: JOINT[name] for name in "ab"})
    yield from _values(contender, flops.max(), _best)
    other = _fit(tables[1], "joint", num_replicates, seed + 1)[1]
    yield from _ratio(contender, other, "joint")
    # The largest is held out.
    law, _ = _fit(tables[0], "joint", num_replicates, seed, holdout_above=0.9 * flops.max())
    yield "a held-out largest run, by the joint law", law.held_out[0].is_inside
    plain = {**CURVE, "C0": 0.0}
    table = _table(places, curve(flops, **plain) * _of_trunks(seed), trunks)
    _, contender = _fit(table, "curve", num_replicates, seed, offset=False)
    yield from _values(contender, flops.max(), lambda at: curve(at, **plain))


def _of_trunks(seed: int) -> Floats:
    return trunk_noise(4, 3, _TRUNKS, _BRANCHES, seed)


def _methods(num_replicates: int, seed: int) -> _Held:
    places = ladder()
    tables = [
        _table(places, joint(*places.T, **JOINT) * noise(len(places), 0.015, seed + i))
        for i in (0, 1)
    ]
    for law in ("joint", "curve"):
        fits = [
            _fit(table, law, num_replicates, seed + i, fit_on="auto")[1]
            for i, table in enumerate(tables)
        ]
        yield from _ratio(fits[0], fits[1], law)


_STUDIES: dict[str, tuple[str, Callable[[int, int], _Held]]] = {
    "runs": ("24 runs that each have a scatter of 1 %", _runs),
    "few_runs": ("12 runs that each have a scatter of 2 %", _few_runs),
    "trunks": (
        f"4 trunks of 3 branches, a scatter of {_TRUNKS:.1%} between trunks and {_BRANCHES:.1%} "
        "between branches",
        _trunks,
    ),
    "trunks_unknown": ("the same, where the table has no column run", _trunks_unknown),
    "methods": ("two ladders of one law, 24 runs that each have a scatter of 1.5 %", _methods),
}


def _table(
    places: Floats, losses: Floats, runs: list[str] | None = None, flops: Floats | None = None
) -> Table:
    numbers = {
        "params": places[:, 0],
        "samples": places[:, 1],
        "flops": _K * places.prod(axis=1) if flops is None else flops,
        "loss": losses,
    }
    names = [f"run{i}" for i in range(len(places))]
    texts = {"name": names, "run": runs or names}
    return Table("made", "canopy", {}, texts, numbers, {}, {}, {}, {})


def _fit(
    table: Table,
    law: str,
    num_replicates: int,
    seed: int,
    fit_on: str = "all",
    offset: bool = True,
    holdout_above: float = np.inf,
) -> tuple[LawFit, Contender]:
    config = FitConfig(
        laws=[law],
        fit_on=fit_on,
        offset=offset,
        holdout_above=holdout_above,
        num_replicates=num_replicates,
        level=_LEVEL,
        seed=seed,
    )
    group, contenders = fit_group(config, "made", table, "loss", 0)
    if group.not_fitted:
        raise UserError(group.not_fitted[law])
    return group.laws[0], contenders[law]


def _holds(interval: Interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high


def _parameters(law: LawFit, truth: dict[str, float]) -> _Held:
    for name, value in truth.items():
        yield f"{name} of the {law.law}", _holds(law.parameters[name], value)


def _values(contender: Contender, largest: float, truth: Callable[[Floats], Floats]) -> _Held:
    """Of the law at the largest compute and beyond; of a joint one, at the best N and D."""
    places = np.array(_TIMES) * largest
    values = contender.predict(places)
    law = "the joint law's best" if truth is _best else "the curve's"
    for times, column, wanted in zip(_TIMES, values.T, truth(places), strict=True):
        name = f"{law} value at {times:g} times the largest compute"
        yield name, _holds(interval(column[0], column[1:], _LEVEL), wanted)


def _best(flops: Floats) -> Floats:
    """The least of the joint law at each compute, by looking."""
    sizes = np.geomspace(1e4, 1e14, 20_001)[:, None]
    return joint(sizes, flops / _K / sizes, **JOINT).min(axis=0)


def _ratio(first: Contender, second: Contender, law: str) -> _Held:
    comparison = compare_laws(first, second, "loss", law, _LEVEL)
    yield (
        f"the mean ratio of two methods that are the same, by the {law}",
        _holds(comparison.mean_ratio, 1.0),
    )
