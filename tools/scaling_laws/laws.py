"""The laws: a saturating power of compute, and Chinchilla's sum of powers of size and samples.

A law is a function of the logarithms of its inputs, each over a reference (the geometric mean of
the points it is fitted to), so that its parameters are of order one, and it returns the logarithm
of the loss or error. All of it is vectorised over parameters: ``theta`` is ``[..., p]``, the
result ``[..., n]``.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: A floor or an offset below this share of the smallest value counts as none.
NOTHING = 1e-3
#: Where the logarithm of a term stands that a law is told to do without.
_ABSENT = -60.0
_EXPONENTS = (1e-3, 4.0)


class Law(Protocol):
    @property
    def formula(self) -> str:
        """With the parameters by name."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The columns of the table, in the order of x."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the parameters, in the order of theta."""

    @property
    def num_parameters(self) -> int:
        """How many are fitted."""

    def predict_log(self, theta: Floats, x: Floats) -> tuple[Floats, Floats]:
        """The logarithm of the value ``[..., n]`` and its Jacobian ``[..., n, p]``.

        Args:
            theta: parameters, ``[..., p]``.
            x: logarithms of the inputs over their reference, ``[n, d]``, or ``[..., n, d]``.
        """

    def bounds(self, x: Floats, y: Floats) -> Floats:
        """``[p, 2]``; a parameter that the law is told to do without has both equal."""

    def starts(self, x: Floats, y: Floats) -> Floats:
        """A grid of starts ``[s, p]``; ``y`` is the logarithm of the values ``[n]``."""

    def physical(self, theta: Floats, reference: Floats) -> dict[str, Floats]:
        """The parameters as the formula has them, each ``[...]``, for inputs in their own units."""


@dataclass(frozen=True)
class ComputeLaw:
    """``L(C) = E + A (C + C0)^-b``: the floor E, and C0 where small budgets saturate.

    The form of Nezhurina et al. 2025 (arXiv 2506.04598) for error rates, which cannot exceed one
    at small compute; with C0 = 0 it is the usual saturating power law.
    """

    has_floor: bool = True
    has_offset: bool = True
    formula: ClassVar[str] = "E + A (C + C0)^-b"
    inputs: ClassVar[tuple[str, ...]] = ("flops",)
    names: ClassVar[tuple[str, ...]] = ("E", "A", "b", "C0")

    @property
    def num_parameters(self) -> int:
        return 2 + self.has_floor + self.has_offset

    def predict_log(self, theta: Floats, x: Floats) -> tuple[Floats, Floats]:
        e, a, b, c0 = (theta[..., i, None] for i in range(4))
        s = np.logaddexp(x[..., 0], c0)
        power = a - b * s
        value = np.logaddexp(e, power)
        share = np.exp(power - value)  # of the power in the value
        jacobian = np.stack([1 - share, share, -share * s, -share * b * np.exp(c0 - s)], axis=-1)
        return value, jacobian

    def bounds(self, x: Floats, y: Floats) -> Floats:
        lowest = y.min() + np.log(NOTHING)
        smallest = x.min() + np.log(NOTHING)
        return np.array(
            [
                (lowest, y.max()) if self.has_floor else (_ABSENT, _ABSENT),
                (y.min() - 20, y.max() + 20),
                _EXPONENTS,
                (smallest, x.max()) if self.has_offset else (_ABSENT, _ABSENT),
            ]
        )

    def starts(self, x: Floats, y: Floats) -> Floats:
        middle = np.median(y)
        shares = (0.02, 0.4, 0.8, 0.95) if self.has_floor else (0.0,)
        offsets = (x.min() - 4, x.min(), np.median(x)) if self.has_offset else (_ABSENT,)
        starts = []
        for share in shares:
            floor = share * np.exp(y.min())
            for offset in offsets:
                s = np.logaddexp(np.median(x), offset)
                for b in (0.05, 0.15, 0.3, 0.6, 1.2):
                    a = np.log(np.exp(middle) - floor) + b * s
                    starts.append((np.log(floor) if floor else _ABSENT, a, b, offset))
        return np.array(starts)

    def physical(self, theta: Floats, reference: Floats) -> dict[str, Floats]:
        e, a, b, c0 = np.moveaxis(theta, -1, 0)
        return {
            "E": np.exp(e),
            "A": np.exp(a + b * np.log(reference[0])),
            "b": b,
            "C0": np.exp(c0) * reference[0],
        }


@dataclass(frozen=True)
class JointLaw:
    """``L(N, D) = E + A N^-a + B D^-b`` (Hoffmann et al. 2022, arXiv 2203.15556, eq. 2).

    ``size`` is the column that counts as N; D is the samples seen.
    """

    size: str = "params"
    has_floor: bool = True
    formula: ClassVar[str] = "E + A N^-a + B D^-b"
    names: ClassVar[tuple[str, ...]] = ("E", "A", "a", "B", "b")

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.size, "samples"

    @property
    def num_parameters(self) -> int:
        return 4 + self.has_floor

    def predict_log(self, theta: Floats, x: Floats) -> tuple[Floats, Floats]:
        e, log_a, a, log_b, b = (theta[..., i, None] for i in range(5))
        of_size = log_a - a * x[..., 0]
        of_samples = log_b - b * x[..., 1]
        value = np.logaddexp(np.logaddexp(e, of_size), of_samples)
        size_share, samples_share = np.exp(of_size - value), np.exp(of_samples - value)
        jacobian = np.stack(
            [
                1 - size_share - samples_share,
                size_share,
                -size_share * x[..., 0],
                samples_share,
                -samples_share * x[..., 1],
            ],
            axis=-1,
        )
        return value, jacobian

    def bounds(self, x: Floats, y: Floats) -> Floats:
        coefficients = (y.min() - 20, y.max() + 20)
        lowest = y.min() + np.log(NOTHING)
        floor = (lowest, y.max()) if self.has_floor else (_ABSENT, _ABSENT)
        return np.array([floor, coefficients, _EXPONENTS, coefficients, _EXPONENTS])

    def starts(self, x: Floats, y: Floats) -> Floats:
        shares = (0.02, 0.4, 0.8) if self.has_floor else (0.0,)
        exponents = (0.1, 0.3, 0.6, 1.2)
        starts = []
        for share in shares:
            floor = share * np.exp(y.min())
            half = np.log((np.exp(np.median(y)) - floor) / 2)
            e = np.log(floor) if floor else _ABSENT
            starts += [(e, half, a, half, b) for a in exponents for b in exponents]
        return np.array(starts)

    def physical(self, theta: Floats, reference: Floats) -> dict[str, Floats]:
        e, log_a, a, log_b, b = np.moveaxis(theta, -1, 0)
        return {
            "E": np.exp(e),
            "A": np.exp(log_a + a * np.log(reference[0])),
            "a": a,
            "B": np.exp(log_b + b * np.log(reference[1])),
            "b": b,
        }
