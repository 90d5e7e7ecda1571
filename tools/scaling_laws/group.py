"""The fits of one method: which points, which laws, and why one was not fitted."""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from omegaconf import MISSING

from recaption.common.errors import UserError
from tools.scaling_laws.bootstrap import bootstrap_law
from tools.scaling_laws.compare import Contender
from tools.scaling_laws.describe import Points, describe_law
from tools.scaling_laws.fitting import FEWEST_PLACES, FittedLaw, TooFewPoints, check_varies, fit_law
from tools.scaling_laws.front import optimal_places, pareto_front
from tools.scaling_laws.laws import ComputeLaw, Floats, JointLaw, Law
from tools.scaling_laws.results import GroupFit, LawFit, Point
from tools.scaling_laws.table import Table
from tools.scaling_laws.trunks import estimate_scatter, simulate_law

LAWS = ("curve", "joint")
#: Fewer trunks are no sample of trunks: of four, a third of the draws have only one or two.
_FEWEST_TRUNKS = 8


@dataclass
class FitConfig:
    """What to fit."""

    table: str = MISSING  #: CSV or Parquet; several with commas between them are one table
    output: str = ""  #: folder of fit.json; the table's own by default
    format: str = "auto"  #: names of the columns: auto, canopy, openclip, comparison
    #: column -> how to read it, [1 -] NAME [* FACTOR], where the format does not fit
    columns: dict[str, str] = field(default_factory=dict)
    #: column -> value: only rows that have it; =OTHER means what stands in column OTHER
    where: dict[str, str] = field(default_factory=dict)
    by: str = "method"  #: column that says which rows are fitted together
    targets: list[str] = field(default_factory=list)  #: loss, error; what the table has by default
    laws: list[str] = field(default_factory=list)  #: curve, joint; what the table allows by default
    fit_on: str = "auto"  #: points of the curve: front, all; auto: all where the front is too small
    bins_per_decade: float = 4  #: of compute, for the front
    floor: bool = True  #: fit E; false: E = 0
    offset: bool = True  #: fit C0 of the curve; false: C0 = 0
    joint_size: str = "params"  #: N: params, params_image, params_text, flops_per_sample
    holdout_above: float = math.inf  #: training FLOPs; points above are predicted, not fitted
    compare: list[str] = field(default_factory=list)  #: two methods; both if there are two
    #: compare by: curve, joint (L(N, D) at the best N and D), auto: the curve if both have one
    compare_by: str = "auto"
    budgets: list[float] = field(default_factory=list)  #: training FLOPs to find optima for
    huber_delta: float = 1e-3  #: where the loss of a log residual turns linear
    num_replicates: int = 500  #: resamplings or simulations of the runs
    level: float = 0.9  #: of the intervals
    seed: int = 0  #: of the resampling


def fit_group(
    config: FitConfig, name: str, group: Table, target: str, number: int
) -> tuple[GroupFit, dict[str, Contender]]:
    """The fits of one method and target, and by law what it is compared by.

    Args:
        config: what to fit.
        name: of the method.
        group: its rows.
        target: ``loss`` or ``error``.
        number: gives its resampling a seed of its own.

    """
    measured = group.numbers[target] > 0  # neither a gap nor an error of 0
    notes = _left_out(group, target)
    group = group.select(measured)
    kinds = config.laws or LAWS
    if not len(group):
        reason = f"{name}, {target}: no row has any to fit"
        return GroupFit(name, target, [], [], dict.fromkeys(kinds, reason)), {}
    flops, values, runs = group.numbers["flops"], group.numbers[target], _runs(group)
    held_out = flops > config.holdout_above
    on_front = np.zeros(len(group), dtype=bool)
    for part in (~held_out, held_out):
        if part.any():
            on_front[part] = pareto_front(flops[part], values[part], config.bins_per_decade)
    on_curve = np.zeros(len(group), dtype=bool)
    laws: list[LawFit] = []
    not_fitted: dict[str, str] = {}
    contenders: dict[str, Contender] = {}
    for kind in kinds:
        seed = (config.seed, number, LAWS.index(kind))
        try:
            if held_out.all():
                raise UserError(
                    f"holdout_above={config.holdout_above:g} is below all {len(group)} points, so "
                    f"none is left to fit; they begin at {flops.min():.4g} training FLOPs"
                )
            law = _law(config, kind, group)
            inputs = np.stack([group.numbers[column] for column in law.inputs], axis=1)
            check_varies(law, inputs[~held_out], values[~held_out])  # before the front is taken
            most = 1.0 if target == "error" else math.inf
            case = _Case(config, law, inputs, values, runs, on_front, held_out, most, seed)
            fit = case.fit()
        except UserError as error:
            hint = ""
            if isinstance(error, TooFewPoints):
                hint = _hint(config, kind, len(group), int(held_out.sum()))
            not_fitted[kind] = f"{name}, {target}: {error}{hint}"
            continue
        points = Points(group.texts["name"], inputs, flops, values)
        rng = np.random.default_rng((*seed, 1))
        used, predicted = fit.chosen & ~held_out, fit.chosen & held_out
        described = describe_law(
            fit.law, points, points.select(predicted), target, config.level, config.budgets, rng
        )
        described.notes += notes + fit.notes + _known_trunks(points.names, runs, used, predicted)
        if kind == "curve":
            on_curve = used
        laws.append(described)
        kinds_of_points = {"front": on_front, "all": np.ones_like(on_front)}
        points_of = frozenset(k for k, v in kinds_of_points.items() if (v == fit.chosen).all())
        contenders[kind] = _contender(name, fit, flops[used], points_of, described, target)
    rows = _rows(group, target, on_front, held_out, on_curve)
    return GroupFit(name, target, rows, laws, not_fitted), contenders


def _left_out(group: Table, target: str) -> list[str]:
    """Notes on the rows that have nothing that a logarithm can be taken of."""
    values = group.numbers[target]
    notes = [f"{gaps} rows have no {target}: left out"] if (gaps := np.isnan(values).sum()) else []
    if perfect := [group.texts["name"][i] for i in np.flatnonzero(values == 0)]:
        notes.append(f"{', '.join(perfect)}: {target} is 0, which has no logarithm: left out")
    return notes


def _law(config: FitConfig, kind: str, group: Table) -> Law:
    law: Law = (
        ComputeLaw(config.floor, config.offset)
        if kind == "curve"
        else JointLaw(config.joint_size, config.floor)
    )
    for column in law.inputs:
        if column not in group.numbers:
            other = (
                ", or joint_size=flops_per_sample"
                if column == config.joint_size and "flops_per_sample" in group.numbers
                else ""
            )
            raise UserError(f"there is no column {column}; give columns.{column}=NAME{other}")
        gaps = np.flatnonzero(np.isnan(group.numbers[column]))
        if len(gaps):
            raise UserError(f"{column} is missing in the point {group.texts['name'][gaps[0]]!r}")
    return law


@dataclass(frozen=True)
class _Fit:
    """A law, the points ``[n]`` that it is of (those held out among them), and what to mind."""

    law: FittedLaw
    chosen: NDArray[np.bool_]
    notes: list[str]


@dataclass(frozen=True)
class _Case:
    """A law and the points ``[n]`` of one method and target that it may be fitted to."""

    config: FitConfig
    law: Law
    inputs: Floats
    values: Floats
    runs: NDArray[np.str_]
    on_front: NDArray[np.bool_]
    held_out: NDArray[np.bool_]
    most: float  #: that a value can be
    seed: tuple[int, ...]

    def fit(self) -> _Fit:
        """Fits the law to the points that it is of; of a front that is too small for it, to all."""
        everything = np.ones_like(self.on_front)
        if not isinstance(self.law, ComputeLaw) or self.config.fit_on == "all":
            return self._fit_to(everything)
        try:
            return self._fit_to(self.on_front)
        except TooFewPoints:
            if self.config.fit_on == "front":
                raise
        fit = self._fit_to(everything)
        num_front, num_all = (
            (chosen & ~self.held_out).sum() for chosen in (self.on_front, everything)
        )
        fit.notes.append(
            f"the front has {num_front} points, too few for L(C): it is fitted to all {num_all}, "
            "so it is of the runs as they are, not of the best at each compute"
        )
        return fit

    def _fit_to(self, chosen: NDArray[np.bool_]) -> _Fit:
        used = chosen & ~self.held_out
        x, y, runs = self.inputs[used], self.values[used], self.runs[used]
        fitted = fit_law(self.law, x, y, self.config.huber_delta, self.most)
        how_often = (self.config.huber_delta, self.config.num_replicates, self.seed)
        num_trunks = len(np.unique(runs))
        if num_trunks == len(runs) or num_trunks >= _FEWEST_TRUNKS:
            return _Fit(bootstrap_law(fitted, x, y, runs, *how_often), chosen, [])
        few = f"the {len(runs)} points are branches of {num_trunks} trunks, too few to draw from"
        scatter = estimate_scatter(fitted, x, runs)
        if scatter is None:
            alone = np.arange(len(runs)).astype(str)
            note = (
                f"{few}, and the law bends through their means: the intervals know nothing of "
                "what the seed of a trunk does, so they are too narrow; more sizes or seeds would "
                "tell"
            )
            return _Fit(bootstrap_law(fitted, x, y, alone, *how_often), chosen, [note])
        note = (
            f"{few}: intervals are of fits to simulated runs, with a scatter of "
            f"{scatter.trunks:.2g} between trunks (of {scatter.trunks_freedom:.1f} degrees of "
            f"freedom) and {scatter.branches:.2g} between branches"
        )
        return _Fit(simulate_law(fitted, x, runs, scatter, *how_often), chosen, [note])


def _contender(
    name: str, fit: _Fit, flops: Floats, points: frozenset[str], described: LawFit, target: str
) -> Contender:
    def at_best(flops: Floats) -> Floats:
        assert described.compute_per_sample is not None
        return optimal_places(fit.law, described.compute_per_sample.k, flops)[1]

    def on_curve(flops: Floats) -> Floats:
        return fit.law.predict_all(flops[:, None])

    notes = list(fit.notes)
    if described.law == "joint" and not described.optima:
        notes.append("best N and D are not determined, and so hardly what L(N, D) is there")
    if described.flat:
        notes.append(f"{target} may not fall with {' and '.join(described.flat)}")
    predict = on_curve if described.law == "curve" else at_best
    return Contender(name, predict, (float(flops.min()), float(flops.max())), points, tuple(notes))


def _runs(group: Table) -> NDArray[np.str_]:
    """The run of each row; one of its own where it has none."""
    rows = np.array([f"row {i}" for i in range(len(group))])
    names = np.array(group.texts.get("run", rows))
    return np.where(names == "", rows, names)


def _known_trunks(
    names: list[str], runs: NDArray[np.str_], used: NDArray[np.bool_], predicted: NDArray[np.bool_]
) -> list[str]:
    """A note on points that are predicted although the fit has other branches of their trunk."""
    known = predicted & np.isin(runs, runs[used])
    if not known.any():
        return []
    return [
        f"held out, {', '.join(names[i] for i in np.flatnonzero(known))}: other branches of the "
        "same trunk are fitted, so what its seed did is known, and this is easier than a new run"
    ]


def _hint(config: FitConfig, kind: str, num_points: int, num_held_out: int) -> str:
    """What can be done about too few points."""
    held_out = f", {num_held_out} held out" if num_held_out else ""
    way = "more runs are needed"
    is_on_front = kind == "curve" and config.fit_on == "front"
    if is_on_front and num_points - num_held_out >= FEWEST_PLACES:
        way = "fit_on=all takes those off the front, too, a larger bins_per_decade more of it"
    return f" (of {num_points}{held_out}); {way}"


def _rows(
    group: Table,
    target: str,
    on_front: NDArray[np.bool_],
    held_out: NDArray[np.bool_],
    on_curve: NDArray[np.bool_],
) -> list[Point]:
    def number(column: str, row: int) -> float | None:
        value = group.numbers[column][row] if column in group.numbers else math.nan
        return None if math.isnan(value) else float(value)

    return [
        Point(
            name=group.texts["name"][i],
            model=group.texts["model"][i] if "model" in group.texts else "",
            run=group.texts["run"][i] if "run" in group.texts else "",
            flops=float(group.numbers["flops"][i]),
            params=number("params", i),
            samples=number("samples", i),
            value=float(group.numbers[target][i]),
            on_front=bool(on_front[i]),
            held_out=bool(held_out[i]),
            was_fitted=bool(on_curve[i]),
        )
        for i in range(len(group))
    ]
