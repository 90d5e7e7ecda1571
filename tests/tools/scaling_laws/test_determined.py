"""Points in which D follows from N tell of neither alone."""

from pathlib import Path

import numpy as np
import pytest

from tests.tools.scaling_laws.synthetic import JOINT, joint, ladder, noise, write_rows
from tools.scaling_laws.determined import GROW_TOGETHER, grow_together
from tools.scaling_laws.fit import fit_table
from tools.scaling_laws.group import FitConfig
from tools.scaling_laws.laws import Floats
from tools.scaling_laws.results import LawFit

SIZES = np.geomspace(1e6, 3e8, 10)


def multiples(*times: float) -> Floats:
    return np.array([[size, each * size] for size in SIZES for each in times])


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        (multiples(20), True),
        # D is a whole number of steps.
        (np.stack([SIZES, 20 * SIZES * noise(10, 0.01, 3)], axis=1), True),
        (np.stack([SIZES, SIZES**0.5], axis=1), True),
        (multiples(20, 25), False),
        (multiples(20, 40), False),
        (np.stack([SIZES, 1e15 / SIZES], axis=1), False),  # of one budget: one falls, one rises
        (ladder(), False),
        (np.stack([SIZES, np.full(10, 1e8)], axis=1), False),
        (multiples(20)[:2], False),
    ],
)
def test_whether_one_follows_from_the_other(places: Floats, expected: bool) -> None:
    assert grow_together(places) == expected


def law_of(folder: Path, places: Floats, holdout_above: float = np.inf) -> LawFit:
    losses = joint(*places.T, **JOINT) * noise(len(places), 0.005, 0)
    rows = [
        {"params": size, "samples": samples, "flops": 6 * size * samples, "loss": loss}
        for (size, samples), loss in zip(places.tolist(), losses.tolist(), strict=True)
    ]
    path = write_rows(folder / "t.csv", rows)
    config = FitConfig(str(path), laws=["joint"], num_replicates=60, holdout_above=holdout_above)
    return fit_table(config).groups[0].laws[0]


@pytest.mark.parametrize("is_held_out", [False, True])
def test_a_multiple_of_the_parameters_has_no_best_use_of_compute(
    tmp_path: Path, is_held_out: bool
) -> None:
    """Nor does a run beside them that is predicted, not fitted."""
    places, above = multiples(20), np.inf
    if is_held_out:
        places, above = np.concatenate([places, [[3e8, 3e11]]]), float(6 * 20.5 * SIZES[-1] ** 2)
    law = law_of(tmp_path, places, above)
    assert len(law.held_out) == is_held_out
    assert (law.optima, law.optimal_exponents) == ([], None)
    assert law.notes.count(GROW_TOGETHER) == 1
    assert "without a and b no best N and D of a budget are told" in law.notes


def test_two_multiples_tell_the_best_use_of_compute(tmp_path: Path) -> None:
    law = law_of(tmp_path, multiples(20, 40))
    assert GROW_TOGETHER not in law.notes
    best = law.optima[0]
    sizes = np.geomspace(1e6, 1e11, 100_001)
    truth = sizes[joint(sizes, best.flops / 6 / sizes, **JOINT).argmin()]
    assert best.size.low <= truth <= best.size.high
