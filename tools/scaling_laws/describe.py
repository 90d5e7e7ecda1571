"""What a fitted law says: its parameters, held-out points, its band, and what a budget is for."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tools.scaling_laws.bands import best_band, curve_band, size_bands
from tools.scaling_laws.bootstrap import interval
from tools.scaling_laws.determined import look_at_terms
from tools.scaling_laws.fitting import FittedLaw
from tools.scaling_laws.front import (
    Optimum,
    compute_optimal,
    compute_per_sample,
    optimal_exponents,
)
from tools.scaling_laws.laws import ComputeLaw, Floats
from tools.scaling_laws.results import LawFit, Prediction

#: A k of C = k N D that differs more than so between points is worth a note.
_WIDE_SPREAD = 3.0


@dataclass(frozen=True)
class Points:
    """Points of one method: names ``[n]``, inputs of a law ``[n, d]``, FLOPs and values ``[n]``."""

    names: list[str]
    inputs: Floats
    flops: Floats
    values: Floats

    def select(self, rows: NDArray[np.bool_]) -> "Points":
        names = [name for name, kept in zip(self.names, rows, strict=True) if kept]
        return Points(names, self.inputs[rows], self.flops[rows], self.values[rows])


def describe_law(
    fitted: FittedLaw,
    points: Points,
    held_out: Points,
    target: str,
    level: float,
    budgets: list[float],
    rng: np.random.Generator,
) -> LawFit:
    """Everything that ``fit.json`` says of one law.

    Args:
        fitted: the law with its replicates.
        points: all points of the method.
        held_out: those to predict.
        target: ``loss`` or ``error``.
        level: of the intervals, such as 0.9.
        budgets: training FLOPs to find optima for; the largest of the points and 10 and 100
            times that by default.
        rng: draws the scatter of held-out runs.
    """
    replicates = fitted.parameters(fitted.replicates)
    parameters = {
        name: interval(float(value), replicates[name], level)
        for name, value in fitted.parameters().items()
    }
    notes = []
    if fitted.bounds[0, 0] < fitted.bounds[0, 1] and parameters["E"].low == 0:
        notes.append("E may be 0: these points do not show where the fall ends")
    terms = look_at_terms(fitted, points.inputs, target, level)
    notes += terms.notes
    for i, name in enumerate(fitted.law.names):
        least, most = fitted.bounds[i]
        if name == "C0" and least < most and fitted.theta[i] > most - 1e-6:
            notes.append(
                "C0 is the largest that is tried, the compute of the largest run: all points are "
                "where the fall begins, so b says little"
            )
    num_parameters = fitted.law.num_parameters
    if len(fitted.residuals) < 2 * num_parameters:
        notes.append(
            f"{len(fitted.residuals)} points for {num_parameters} parameters: the intervals hold "
            "the truth somewhat less often than they say"
        )
    is_curve = isinstance(fitted.law, ComputeLaw)
    described = LawFit(
        law="curve" if is_curve else "joint",
        formula=fitted.law.formula,
        inputs=list(fitted.law.inputs),
        parameters=parameters,
        num_points=len(fitted.residuals),
        rms=float(np.sqrt(np.mean(fitted.residuals**2))),
        held_out=_predict(fitted, held_out, level, rng) if held_out.names else [],
        notes=notes,
        bands=[curve_band(fitted, points.flops, level, budgets)] if is_curve else [],
        flat=terms.flat,
    )
    if is_curve:
        _note_most(described, fitted, points, target)
        return described
    k = compute_per_sample(points.flops, *points.inputs.T)
    if k.spread > _WIDE_SPREAD:
        notes.append(
            f"FLOPs for each sample and unit of {fitted.law.inputs[0]} differ by a factor of "
            f"{k.spread:.1f}, so C = k N D is rough; joint_size=flops_per_sample is exact"
        )
    described.compute_per_sample = k
    best = None
    if terms.undetermined:
        notes.append(
            f"without {' and '.join(terms.undetermined)} no best N and D of a budget are told"
        )
    else:
        described.optimal_exponents = optimal_exponents(fitted, level)
        described.optima = [
            compute_optimal(fitted, k.k, points.inputs, budget, level)
            for budget in budgets or [float(points.flops.max()) * times for times in (1, 10, 100)]
        ]
        notes += _untried(described.optima, points.inputs)
        best = best_band(fitted, k.k, points.flops, points.inputs[:, 0], level, budgets)
    described.bands = [best] if best else size_bands(fitted, points.flops, points.inputs, level)
    _note_most(described, fitted, points, target)
    return described


def _note_most(described: LawFit, fitted: FittedLaw, points: Points, target: str) -> None:
    told = [best.value.value for best in described.optima]
    if max([*told, *fitted.predict(points.inputs)]) >= fitted.most:
        described.notes.append(
            f"{target} cannot exceed {fitted.most:g}: where the law does, that is told"
        )


def _untried(optima: list[Optimum], trained: Floats) -> list[str]:
    """A note on those that are beyond what runs have had."""
    told = [
        f"{best.flops:.3g} ({' and '.join({'size': 'N', 'samples': 'D'}[n] for n in best.untried)})"
        for best in optima
        if best.untried
    ]
    if not told:
        return []
    (least_n, least_d), (most_n, most_d) = trained.min(axis=0), trained.max(axis=0)
    return [
        f"the best use of C {', '.join(told)} is outside what was trained, N {least_n:.3g} to "
        f"{most_n:.3g} and D {least_d:.3g} to {most_d:.3g}: a law drawn on, which no run has tried"
    ]


def _predict(
    fitted: FittedLaw, held_out: Points, level: float, rng: np.random.Generator
) -> list[Prediction]:
    predicted = fitted.predict(held_out.inputs)
    # What is above the most ends there once a run's scatter is in it, not before.
    replicates = replace(fitted, most=np.inf).predict_replicates(held_out.inputs)
    scatter = np.exp(_scatter_of_runs(fitted, replicates.shape, rng))
    replicates = np.minimum(replicates * scatter, fitted.most)
    predictions = []
    for i, measured in enumerate(held_out.values):
        within = interval(predicted[i], replicates[:, i], level)
        predictions.append(
            Prediction(
                name=held_out.names[i],
                flops=float(held_out.flops[i]),
                measured=float(measured),
                predicted=within,
                relative_error=float(predicted[i] / measured - 1),
                is_inside=bool(within.low <= measured <= within.high),
            )
        )
    return predictions


def _scatter_of_runs(fitted: FittedLaw, shape: tuple[int, int], rng: np.random.Generator) -> Floats:
    """What one run more is off by, in its logarithm: for each replicate and run, ``[r, n]``."""
    if fitted.run_scatter is not None:
        return fitted.run_scatter[:, None] * rng.standard_normal(shape)
    # Residuals of a fit are smaller than the scatter by the parameters spent.
    num_points = len(fitted.residuals)
    scatter = fitted.residuals * np.sqrt(num_points / (num_points - fitted.law.num_parameters))
    return np.asarray(rng.choice(scatter, shape))
