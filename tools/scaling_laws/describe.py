"""What a fitted law says: its parameters, held-out points, its band, and what a budget is for."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tools.scaling_laws.bootstrap import interval
from tools.scaling_laws.fitting import FittedLaw
from tools.scaling_laws.front import compute_optimal, compute_per_sample, optimal_exponents
from tools.scaling_laws.laws import ComputeLaw, Floats
from tools.scaling_laws.results import Band, LawFit, Prediction

_NUM_BAND_PLACES = 60
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
    level: float,
    budgets: list[float],
    rng: np.random.Generator,
) -> LawFit:
    """Everything that ``fit.json`` says of one law.

    Args:
        fitted: the law with its replicates.
        points: all points of the method.
        held_out: those to predict.
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
    for i, name in enumerate(fitted.law.names):
        if name in ("a", "b") and parameters[name].high > 0.99 * fitted.bounds[i, 1]:
            notes.append(
                f"{name} is not determined: its interval reaches the largest that is tried; fewer "
                "parameters (offset=false, floor=false) or more points would say more"
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
    )
    if is_curve:
        described.band = _band(fitted, points.flops, level, budgets)
        return described
    k = compute_per_sample(points.flops, *points.inputs.T)
    if k.spread > _WIDE_SPREAD:
        notes.append(
            f"FLOPs for each sample and unit of {fitted.law.inputs[0]} differ by a factor of "
            f"{k.spread:.1f}, so C = k N D is rough; joint_size=flops_per_sample is exact"
        )
    described.compute_per_sample = k
    described.optimal_exponents = optimal_exponents(fitted, level)
    described.optima = [
        compute_optimal(fitted, k.k, budget, level)
        for budget in budgets or [float(points.flops.max()) * times for times in (1, 10, 100)]
    ]
    return described


def _predict(
    fitted: FittedLaw, held_out: Points, level: float, rng: np.random.Generator
) -> list[Prediction]:
    predicted = fitted.predict(held_out.inputs)
    replicates = fitted.predict_replicates(held_out.inputs)
    # One run more has the runs' scatter; residuals of a fit are smaller by the parameters spent.
    num_points = len(fitted.residuals)
    scatter = fitted.residuals * np.sqrt(num_points / (num_points - fitted.law.num_parameters))
    replicates = replicates * np.exp(rng.choice(scatter, replicates.shape))
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


def _band(fitted: FittedLaw, flops: Floats, level: float, budgets: list[float]) -> Band:
    """From the smallest compute of the points to ten times the largest, or the largest budget."""
    places = np.geomspace(flops.min(), max(10 * flops.max(), *budgets, 0.0), _NUM_BAND_PLACES)
    value = fitted.predict(places[:, None])
    tail = (1 - level) / 2
    low, high = np.quantile(fitted.predict_replicates(places[:, None]), [tail, 1 - tail], axis=0)
    return Band(places.tolist(), value.tolist(), low.tolist(), high.tolist())
