"""What is said of a fitted law."""

import numpy as np
import pytest

from tests.tools.scaling_laws.synthetic import CURVE, curve, noise
from tools.scaling_laws.bootstrap import bootstrap_law
from tools.scaling_laws.describe import Points, describe_law
from tools.scaling_laws.fitting import fit_law
from tools.scaling_laws.laws import ComputeLaw
from tools.scaling_laws.results import LawFit

SCATTER = 0.03
BEYOND = 2e19


def describe(
    num_points: int, has_floor: bool = True, has_offset: bool = True, **changes: float
) -> LawFit:
    flops = np.append(np.geomspace(1e15, 1e19, num_points), BEYOND)
    values = curve(flops, **{**CURVE, **changes}) * noise(num_points + 1, SCATTER, 4)
    points = Points([f"run{i}" for i in range(num_points + 1)], flops[:, None], flops, values)
    held_out = flops == BEYOND
    kept = points.select(~held_out)
    fitted = fit_law(ComputeLaw(has_floor, has_offset), kept.inputs, kept.values, 1e-3)
    runs = np.array(kept.names)
    fitted = bootstrap_law(fitted, kept.inputs, kept.values, runs, 1e-3, 200, [0])
    rng = np.random.default_rng(0)
    return describe_law(fitted, points, points.select(held_out), "loss", 0.9, [], rng)


def test_a_held_out_run_has_scatter_of_its_own_and_the_band_has_not() -> None:
    law = describe(num_points=150)
    assert law.rms == pytest.approx(SCATTER, rel=0.15)
    prediction = law.held_out[0].predicted
    of_one_run = np.log(prediction.high / prediction.low)
    assert of_one_run == pytest.approx(2 * 1.645 * SCATTER, rel=0.3)
    (band,) = law.bands
    low, high = (np.interp(BEYOND, band.flops, side) for side in (band.low, band.high))
    assert np.log(high / low) < 0.7 * of_one_run
    assert band.low[0] < band.value[0] < band.high[0]
    assert band.flops[-1] == pytest.approx(10 * BEYOND)


def test_few_points_are_noted() -> None:
    notes = describe(num_points=7).notes
    assert any(note.startswith("7 points for 4 parameters") for note in notes)
    assert not any("points for" in note for note in describe(num_points=8).notes)


def test_an_offset_that_is_the_largest_is_noted_unless_it_was_left_out() -> None:
    said = "C0 is the largest that is tried"
    assert any(said in note for note in describe(num_points=20, C0=1e20).notes)
    without = describe(num_points=20, has_offset=False, C0=0.0)
    assert not any(said in note for note in without.notes)


def test_a_floor_that_may_be_none_is_noted_unless_it_was_left_out() -> None:
    said = "E may be 0"
    assert any(said in note for note in describe(num_points=20, E=0.0).notes)
    without = describe(num_points=20, has_floor=False, E=0.0)
    assert not any(said in note for note in without.notes)
    assert not any(said in note for note in describe(num_points=150).notes)
