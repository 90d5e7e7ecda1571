"""The fits of one method: which points, which laws, and why one was not fitted."""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from omegaconf import MISSING

from recaption.common.errors import UserError
from tools.scaling_laws.bootstrap import bootstrap_law
from tools.scaling_laws.describe import Points, describe_law
from tools.scaling_laws.fitting import FittedLaw, TooFewPoints, fit_law
from tools.scaling_laws.front import pareto_front
from tools.scaling_laws.laws import ComputeLaw, Floats, JointLaw, Law
from tools.scaling_laws.results import GroupFit, LawFit, Point
from tools.scaling_laws.table import Table

LAWS = ("curve", "joint")


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
    budgets: list[float] = field(default_factory=list)  #: training FLOPs to find optima for
    huber_delta: float = 1e-3  #: where the loss of a log residual turns linear
    num_replicates: int = 500  #: resamplings of the runs
    level: float = 0.9  #: of the intervals
    seed: int = 0  #: of the resampling


@dataclass(frozen=True)
class Curve:
    """A fitted L(C) and the smallest and largest training FLOPs of the points it is fitted to."""

    fitted: FittedLaw
    flops: tuple[float, float]


def fit_group(
    config: FitConfig, name: str, group: Table, target: str, number: int
) -> tuple[GroupFit, Curve | None]:
    """The fits of one method and target, and its curve if it has one.

    Args:
        config: what to fit.
        name: of the method.
        group: its rows.
        target: ``loss`` or ``error``.
        number: gives its resampling a seed of its own.

    Raises:
        UserError: a law that was asked for by name cannot be fitted, or there is no ``target``.
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
    curve = None
    for kind in config.laws or LAWS:
        chosen = on_front if _is_on_front(config, kind) else np.ones(len(group), dtype=bool)
        used = chosen & ~held_out
        try:
            law = _law(config, kind, group)
            inputs = np.stack([group.numbers[column] for column in law.inputs], axis=1)
            seed = (config.seed, number, LAWS.index(kind))
            fitted = _fit(config, law, group, inputs, values, used, seed)
        except UserError as error:
            hint = ""
            if isinstance(error, TooFewPoints):
                hint = _hint(config, kind, len(group), int(held_out.sum()))
            reason = f"{name}, {target}: {error}{hint}"
            if config.laws:
                raise UserError(f"{group.path}: {reason}") from None
            not_fitted[kind] = reason
            continue
        points = Points(group.texts["name"], inputs, flops, values)
        rng = np.random.default_rng((*seed, 1))
        to_predict = points.select(chosen & held_out)
        described = describe_law(fitted, points, to_predict, config.level, config.budgets, rng)
        if not measured.all():
            described.notes.append(f"{(~measured).sum()} rows have no {target}: left out")
        laws.append(described)
        if kind == "curve":
            curve = Curve(fitted, (float(flops[used].min()), float(flops[used].max())))
    rows = _rows(config, group, target, on_front, held_out)
    return GroupFit(name, target, rows, laws, not_fitted), curve


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
    names = group.texts.get("run") or [""] * len(group)
    runs = np.array([name or f"row {i}" for i, name in enumerate(names)])[used]
    return bootstrap_law(
        fitted, inputs, values, runs, config.huber_delta, config.num_replicates, seed
    )


def _hint(config: FitConfig, kind: str, num_points: int, num_held_out: int) -> str:
    """What can be done about too few points."""
    ways = [f"{key}=false fits less" for key in ("floor",) if getattr(config, key)]
    if kind == "curve":
        ways = ["offset=false fits less"] * config.offset + ways
    if _is_on_front(config, kind):
        ways = ["fit_on=all takes those off the front, too", *ways]
    held_out = f", {num_held_out} held out" if num_held_out else ""
    return f" (of {num_points}{held_out}); " + ("; ".join(ways) or "train more")


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
