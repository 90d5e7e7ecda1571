"""What points tell of a law's terms: whether it falls with an input at all, and how steeply."""

import math
from dataclasses import dataclass, field

import numpy as np

from tools.scaling_laws.fitting import FittedLaw, normalise
from tools.scaling_laws.laws import NOTHING, Floats

#: The coefficient, the exponent and the input of each term, by the law's inputs.
_TERMS = {1: (("A", "b", "C"),), 2: (("A", "a", "N"), ("B", "b", "D"))}
#: Of log D where log N is given, or the other way. With exact multiples the intervals that are told
#: hold the best N one time in four, from here on as often as they say (docs/log.md).
_LEAST_SPREAD = 0.02
#: Three sizes are the fewest that a law is fitted to.
_FEWEST_SIZES = 3
GROW_TOGETHER = (
    "N and D grow together in these points; give two or more samples_per_parameter, or samples"
)
_REMEDY = "fewer parameters (offset=false, floor=false) or more points would say more"


@dataclass
class Determined:
    """``undetermined`` exponents, ``flat`` inputs that the value may not fall with, and notes."""

    undetermined: list[str] = field(default_factory=list)
    flat: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def look_at_terms(fitted: FittedLaw, inputs: Floats, target: str, level: float) -> Determined:
    """Looks at each term's exponent, coefficient and share of the value.

    A law can only fall. Points that do not are fitted by a term with no slope or of no size, whose
    exponent then says nothing, however narrow its interval is.

    Args:
        fitted: the law with its replicates.
        inputs: of the points it is fitted to ``[n, d]``.
        target: ``loss`` or ``error``.
        level: of the intervals, such as 0.9.
    """
    found = Determined()
    law, x = fitted.law, normalise(inputs, fitted.reference)
    theta = np.concatenate([fitted.theta[None], fitted.replicates])
    tail = (1 - level) / 2
    if inputs.shape[1] == 2 and grow_together(fitted.inputs):
        found.undetermined += ["a", "b"]
        found.notes.append(GROW_TOGETHER)
    for coefficient, exponent, name in _TERMS[inputs.shape[1]]:
        at, power = law.names.index(coefficient), law.names.index(exponent)
        least, most = fitted.bounds[power]
        low, high = np.quantile(theta[1:, power], [tail, 1 - tail])
        # d log value / d log coefficient is the term's share of the value.
        shares = law.predict_log(theta, x)[1][..., at]
        largest = shares.max(axis=1)
        fall = _fall(fitted, theta, x, at)
        smallest_share, smallest_fall = (np.quantile(each[1:], tail) for each in (largest, fall))
        reasons = []
        reached = {"largest": high > 0.99 * most, "least": low < 2 * least}
        if ends := [end for end, is_reached in reached.items() if is_reached]:
            reasons.append(f"its interval reaches the {' and the '.join(ends)} that is tried")
        if np.quantile(theta[1:, at], tail) < fitted.bounds[at, 0] + 1e-6:
            reasons.append(f"{coefficient} may be the least that is tried")
        elif smallest_share < NOTHING:
            reasons.append(
                f"its term may be as little as {smallest_share:.1g} of the {target} where it is "
                "largest"
            )
        if reasons and exponent not in found.undetermined:
            found.undetermined.append(exponent)
            found.notes.append(f"{exponent} is not determined: {', '.join(reasons)}; {_REMEDY}")
        if min(fall[0], smallest_fall) < NOTHING:
            found.flat.append(name)
            how = "does not" if fall[0] < NOTHING else "may not"
            found.notes.append(f"{target} {how} fall with {name} in these points")
    return found


def grow_together(inputs: Floats) -> bool:
    """Whether D follows from N in points ``[n, 2]``, so that no fit tells what either does.

    Rounding to steps scatters D a little around a multiple of N.
    """
    x = np.log(inputs)
    if len(np.unique(inputs[:, 0])) < _FEWEST_SIZES or not np.ptp(x, axis=0).all():
        return False
    correlation = float(np.corrcoef(x.T)[0, 1])
    unexplained = math.sqrt(max(0.0, 1 - correlation**2))
    return correlation > 0 and bool((unexplained * x.std(axis=0) < _LEAST_SPREAD).all())


def _fall(fitted: FittedLaw, theta: Floats, x: Floats, coefficient: int) -> Floats:
    """By which share the value falls from the least to the most of a term's input, ``[1 + r]``,
    where the other input is in the middle."""
    column = 0 if fitted.law.names[coefficient] == "A" else 1
    ends = np.tile(np.median(x, axis=0), (2, 1))
    ends[:, column] = x[:, column].min(), x[:, column].max()
    first, last = np.moveaxis(fitted.law.predict_log(theta, ends)[0], -1, 0)
    return 1 - np.exp(last - first)
