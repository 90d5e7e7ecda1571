"""What ``fit`` finds, as it stands in ``fit.json``: these dataclasses, field by field.

FLOPs are training FLOPs, sizes are parameters (or what ``joint_size`` names), values are losses or
errors, and an interval is ``{"value", "low", "high"}``.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from tools.scaling_laws.bootstrap import Interval
from tools.scaling_laws.compare import Comparison
from tools.scaling_laws.front import ComputePerSample, Optimum
from tools.scaling_laws.matched import Matched

VERSION = 3


@dataclass(frozen=True)
class Point:
    """A row of the table; ``was_fitted`` says whether the curve was fitted to it."""

    name: str
    model: str
    run: str
    flops: float
    params: float | None
    samples: float | None
    value: float
    on_front: bool
    held_out: bool
    was_fitted: bool


@dataclass(frozen=True)
class Prediction:
    """A held-out point and what was predicted: ``relative_error`` is predicted / measured - 1.

    The interval holds one more run, so it has the runs' own scatter besides the law's uncertainty;
    ``is_inside`` says whether the measured value is within it.
    """

    name: str
    flops: float
    measured: float
    predicted: Interval
    relative_error: float
    is_inside: bool


@dataclass(frozen=True)
class Band:
    """The law and its interval along compute, without the scatter of single runs.

    ``at`` says what of L(N, D) it is: ``best`` at the best N and D of each compute, ``size`` at the
    ``size`` of some of the runs, over D; of L(C) it is ``compute``.
    """

    at: str
    size: float | None
    flops: list[float]
    value: list[float]
    low: list[float]
    high: list[float]


@dataclass
class LawFit:
    """One fitted law. ``law`` is ``curve`` for L(C) or ``joint`` for L(N, D).

    ``parameters`` are those of ``formula``; ``rms`` is the root mean square of log (measured /
    predicted), so 0.01 is one per cent. ``notes`` say what to mind; ``flat``
    are the inputs (N, D or C) that the value may not fall with. ``compute_per_sample`` (k in
    C = k N D), ``optimal_exponents`` and ``optima`` are of a joint law, the last two only of one
    whose exponents are determined.
    """

    law: str
    formula: str
    inputs: list[str]
    parameters: dict[str, Interval]
    num_points: int
    rms: float
    held_out: list[Prediction]
    notes: list[str]
    bands: list[Band]
    flat: list[str]
    compute_per_sample: ComputePerSample | None = None
    optimal_exponents: dict[str, Interval] | None = None
    optima: list[Optimum] = field(default_factory=list)


@dataclass(frozen=True)
class GroupFit:
    """One method (or value of ``by``) and one target, with why a law was not fitted."""

    group: str
    target: str
    points: list[Point]
    laws: list[LawFit]
    not_fitted: dict[str, str]


@dataclass(frozen=True)
class FitResult:
    """All of ``fit.json``.

    ``columns`` says how each of the table's columns was read, ``unfinished`` names the runs that
    their status left out, ``unreadable`` says of columns that no law needs what is no figure.
    """

    table: str
    table_sha256: list[str]
    format: str
    columns: dict[str, str]
    num_rows: int
    left_out: dict[str, int]
    unfinished: dict[str, list[str]]
    unreadable: dict[str, str]
    settings: dict[str, Any]
    groups: list[GroupFit]
    comparisons: list[Comparison]
    not_compared: dict[str, str]
    matched: list[Matched]
    version: int = VERSION

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)
