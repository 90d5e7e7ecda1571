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

LAWS = ("curve", "joint")
#: Fewer runs are no sample of runs: of four, a third of the draws have only one or two.
_FEWEST_RUNS = 8


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
    fit_on: str = "front"  #: points of the curve: front, all
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
    num_replicates: int = 500  #: resamplings of the runs
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

    Raises:
        UserError: no row has the ``target``.
    """
    measured = ~np.isnan(group.numbers[target])
    group = group.select(measured)
    if not len(group):
        raise UserError(f"{group.path}: {name} has no {target} in any row")
    flops, values = group.numbers["flops"], group.numbers[target]
    held_out = flops > config.holdout_above
    on_front = np.zeros(len(group), dtype=bool)
    for part in (~held_out, held_out):
        if part.any():
            on_front[part] = pareto_front(flops[part], values[part], config.bins_per_decade)
    laws: list[LawFit] = []
    not_fitted: dict[str, str] = {}
    contenders: dict[str, Contender] = {}
    for kind in config.laws or LAWS:
        chosen = on_front if _is_on_front(config, kind) else np.ones(len(group), dtype=bool)
        used = chosen & ~held_out
        try:
            law = _law(config, kind, group)
            inputs = np.stack([group.numbers[column] for column in law.inputs], axis=1)
            check_varies(law, inputs[~held_out], values[~held_out])  # before the front is taken
            seed = (config.seed, number, LAWS.index(kind))
            fitted = _fit(config, law, group, inputs, values, used, seed)
        except UserError as error:
            hint = ""
            if isinstance(error, TooFewPoints):
                hint = _hint(config, kind, len(group), int(held_out.sum()))
            not_fitted[kind] = f"{name}, {target}: {error}{hint}"
            continue
        points = Points(group.texts["name"], inputs, flops, values)
        rng = np.random.default_rng((*seed, 1))
        to_predict = points.select(chosen & held_out)
        described = describe_law(fitted, points, to_predict, config.level, config.budgets, rng)
        if not measured.all():
            described.notes.append(f"{(~measured).sum()} rows have no {target}: left out")
        if note := _runs(group, used)[1]:
            described.notes.append(note)
        laws.append(described)
        contenders[kind] = _contender(name, fitted, flops[used], described)
    rows = _rows(config, group, target, on_front, held_out)
    return GroupFit(name, target, rows, laws, not_fitted), contenders


def _is_on_front(config: FitConfig, kind: str) -> bool:
    return kind == "curve" and config.fit_on == "front"


def _law(config: FitConfig, kind: str, group: Table) -> Law:
    law: Law = (
        ComputeLaw(config.floor, config.offset)
        if kind == "curve"
        else JointLaw(config.joint_size, config.floor)
    )
    for column in law.inputs:
        if column not in group.numbers:
            raise UserError(f"there is no column {column}; give columns.{column}=NAME")
        gaps = np.flatnonzero(np.isnan(group.numbers[column]))
        if len(gaps):
            raise UserError(f"{column} is missing in the point {group.texts['name'][gaps[0]]!r}")
    return law


def _contender(name: str, fitted: FittedLaw, flops: Floats, described: LawFit) -> Contender:
    def at_best(flops: Floats) -> Floats:
        assert described.compute_per_sample is not None
        return optimal_places(fitted, described.compute_per_sample.k, flops)[1]

    def on_curve(flops: Floats) -> Floats:
        return fitted.predict_all(flops[:, None])

    predict = on_curve if described.law == "curve" else at_best
    return Contender(name, predict, (float(flops.min()), float(flops.max())))


def _fit(
    config: FitConfig,
    law: Law,
    group: Table,
    inputs: Floats,
    values: Floats,
    used: NDArray[np.bool_],
    seed: tuple[int, ...],
) -> FittedLaw:
    inputs, values = inputs[used], values[used]
    fitted = fit_law(law, inputs, values, config.huber_delta)
    runs, _ = _runs(group, used)
    return bootstrap_law(
        fitted, inputs, values, runs, config.huber_delta, config.num_replicates, seed
    )


def _runs(group: Table, used: NDArray[np.bool_]) -> tuple[NDArray[np.str_], str | None]:
    """What is resampled together, and a note if that is not what it should be."""
    rows = np.array([f"row {i}" for i in range(len(group))])
    names = np.array(group.texts.get("run", rows))
    runs = np.where(names == "", rows, names)[used]
    num_runs = len(np.unique(runs))
    if num_runs in (len(runs), 0) or num_runs >= _FEWEST_RUNS:
        return runs, None
    return rows[used], (
        f"the {len(runs)} points are branches of {num_runs} runs, too few to resample: they are "
        "resampled as if each were a run of its own, so the intervals may be too narrow"
    )


def _hint(config: FitConfig, kind: str, num_points: int, num_held_out: int) -> str:
    """What can be done about too few points."""
    held_out = f", {num_held_out} held out" if num_held_out else ""
    way = "more runs are needed"
    if _is_on_front(config, kind) and num_points - num_held_out >= FEWEST_PLACES:
        way = "fit_on=all takes those off the front, too, a larger bins_per_decade more of it"
    return f" (of {num_points}{held_out}); {way}"


def _rows(
    config: FitConfig,
    group: Table,
    target: str,
    on_front: NDArray[np.bool_],
    held_out: NDArray[np.bool_],
) -> list[Point]:
    def number(column: str, row: int) -> float | None:
        value = group.numbers[column][row] if column in group.numbers else math.nan
        return None if math.isnan(value) else float(value)

    fitted = ~held_out & (on_front if _is_on_front(config, "curve") else True)
    return [
        Point(
            name=group.texts["name"][i],
            model=group.texts["model"][i] if "model" in group.texts else "",
            flops=float(group.numbers["flops"][i]),
            params=number("params", i),
            samples=number("samples", i),
            value=float(group.numbers[target][i]),
            on_front=bool(on_front[i]),
            held_out=bool(held_out[i]),
            was_fitted=bool(fitted[i]),
        )
        for i in range(len(group))
    ]
