"""The command, on ladders that follow known laws."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recaption.common.errors import UserError
from tests.tools.scaling_laws.synthetic import JOINT, joint, ladder_rows, noise, write_rows
from tools.scaling_laws.fit import fit_table, main
from tools.scaling_laws.group import FitConfig
from tools.scaling_laws.terminal import format_result

FEW = "num_replicates=40"
#: The four dearest runs of each method, of 24.
HELD_OUT = 2e17


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = ladder_rows("caft", seed=1, A=0.8 * JOINT["A"], B=0.8 * JOINT["B"])
    rows += ladder_rows("clip", seed=2)
    rows.append(rows[0] | {"name": "dead", "status": "failed", "loss": "nan"})
    return write_rows(tmp_path_factory.mktemp("ladder") / "results.csv", rows)


def test_command(table: Path, tmp_path: Path) -> None:
    """Two methods: fits, held-out runs, optima and comparison, in text, JSON and a file."""
    command = [sys.executable, "-m", "tools.scaling_laws", "fit", f"table={table}", FEW]
    command += [f"output={tmp_path / 'out'}", f"holdout_above={HELD_OUT}", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *text, last = done.stdout.splitlines()
    result = json.loads((tmp_path / "out" / "fit.json").read_text())
    assert json.loads(last) == result
    assert any(line.startswith("caft against clip, loss") for line in text)
    assert "  left out: 1 rows, status=failed" in text and "  failed: dead" in text
    assert result["left_out"] == {"status=failed": 1}
    assert [(group["group"], group["target"]) for group in result["groups"]] == [
        (method, target) for method in ("caft", "clip") for target in ("loss", "error")
    ]
    for group in result["groups"]:
        check_group(group, scale=1 if group["target"] == "loss" else 0.25)
    inside = [
        prediction["is_inside"]
        for group in result["groups"]
        for prediction in group["laws"][1]["held_out"]
    ]
    assert sum(inside) >= 0.7 * len(inside)
    loss, error = result["comparisons"]
    for comparison in (loss, error):
        assert (comparison["first"], comparison["second"]) == ("caft", "clip")
        assert comparison["mean_ratio"]["high"] < 1
        assert comparison["mean_probability"] > 0.97
        assert comparison["multipliers"] and comparison["notes"] == []
        assert all(each["times"]["value"] > 1 for each in comparison["multipliers"])
        assert max(comparison["flops"]) < HELD_OUT


def check_group(group: dict[str, Any], scale: float) -> None:
    curve, both = group["laws"]
    assert (curve["law"], both["law"]) == ("curve", "joint")
    held_out = [point for point in group["points"] if point["held_out"]]
    assert 0 < len(held_out) == sum(point["flops"] > HELD_OUT for point in group["points"])
    fitted = [point for point in group["points"] if point["was_fitted"]]
    assert all(point["on_front"] and not point["held_out"] for point in fitted)
    assert len(fitted) == curve["num_points"]
    assert both["num_points"] == 24 - len(held_out)
    assert [point["name"] for point in both["held_out"]] == [point["name"] for point in held_out]
    assert all(abs(point["relative_error"]) < 0.08 for point in both["held_out"])
    factor = 0.8 if group["group"] == "caft" else 1
    truth = {name: value * scale for name, value in JOINT.items() if name in "EAB"}
    truth |= {"a": JOINT["a"], "b": JOINT["b"]}
    truth |= {"A": truth["A"] * factor, "B": truth["B"] * factor}
    inside = [
        both["parameters"][n]["low"] <= truth[n] <= both["parameters"][n]["high"] for n in truth
    ]
    assert sum(inside) >= 4
    k = both["compute_per_sample"]
    assert (k["k"], k["spread"]) == pytest.approx((6, 1))
    best = both["optima"][0]
    at_best = joint(best["size"]["value"], best["samples"]["value"], **truth)
    assert best["value"]["value"] == pytest.approx(at_best, rel=0.03)
    for law, at in ((curve, "compute"), (both, "best")):
        (band,) = law["bands"]
        assert band["at"] == at and len(band["flops"]) == len(band["low"])


def fit(table: Path, **settings: Any) -> Any:
    return fit_table(FitConfig(table=str(table), num_replicates=20, **settings))


def test_the_same_seed_gives_the_same_intervals(table: Path) -> None:
    first, again, other = (
        fit(table, targets=["loss"], laws=["joint"], seed=seed).to_dict() for seed in (0, 0, 1)
    )
    assert first == again
    assert first["groups"][0]["laws"] != other["groups"][0]["laws"]


def rows_of_trunks(num_seeds: int) -> list[dict[str, Any]]:
    """Ladders without noise but what the four lengths of a size and seed have in common."""
    rows = []
    for seed in range(num_seeds):
        for i, row in enumerate(ladder_rows(scatter=0.0)):
            row["loss"] *= 1 + 0.02 * ((i // 4 + seed) % 3 - 1)
            rows.append(row | {"run": f"{row['model']}-{seed}", "seed": seed})
    return rows


def test_branches_of_a_run_are_resampled_together(tmp_path: Path) -> None:
    """Noise that all branches of a run share must widen the intervals."""
    laws = []
    for name, changes in (("trunks", {}), ("alone", {"run": ""})):
        rows = [row | changes for row in rows_of_trunks(num_seeds=2)]
        path = write_rows(tmp_path / f"{name}.csv", rows)
        laws.append(fit(path, targets=["loss"], laws=["joint"]).groups[0].laws[0])
    trunks, alone = (law.parameters["a"] for law in laws)
    assert trunks.value == pytest.approx(alone.value)
    assert trunks.high - trunks.low > 1.2 * (alone.high - alone.low)
    assert not any("too few to draw from" in note for law in laws for note in law.notes)


def test_a_handful_of_trunks_is_no_sample_and_says_so(tmp_path: Path) -> None:
    """What their branches have in common counts all the same, in the laws and the comparison."""
    rows = rows_of_trunks(num_seeds=1) + [
        row | {"method": "clip", "run": f"clip-{row['run']}"} for row in rows_of_trunks(num_seeds=1)
    ]
    widths = []
    for name, changes in (("trunks", {}), ("alone", {"run": ""})):
        path = write_rows(tmp_path / f"{name}.csv", [row | changes for row in rows])
        result = fit(path, targets=["loss"], laws=["joint"])
        notes = result.groups[0].laws[0].notes
        said = "24 points are branches of 6 trunks, too few to draw from: intervals are of fits to"
        assert any(said in note for note in notes) == (name == "trunks")
        comparison = result.comparisons[0]
        of_both = [f"caft: the {said}", f"clip: the {said}"] if name == "trunks" else []
        assert [note[: len(of_both[0])] for note in comparison.notes] == of_both
        widths.append(comparison.mean_ratio.high / comparison.mean_ratio.low)
    assert np.log(widths[0]) > 1.5 * np.log(widths[1])


def test_a_front_that_is_too_small_for_a_curve(tmp_path: Path) -> None:
    """One run is the best of each of four bins; the others are worse than a cheaper one."""
    flops = np.geomspace(1e15, 1e18, 12)
    losses = 2 * (flops / 1e15) ** -0.1 * np.where(np.arange(12) % 3, 1.5, 1)
    rows = [{"flops": c, "loss": y} for c, y in zip(flops.tolist(), losses.tolist(), strict=True)]
    path = write_rows(tmp_path / "t.csv", rows)
    (group,) = fit(path, laws=["curve"]).groups
    assert sum(point.on_front for point in group.points) < 6
    assert all(point.was_fitted for point in group.points)
    assert group.laws[0].num_points == 12
    said = "too few for L(C): it is fitted to all 12, so it is of the runs as they are"
    assert any(said in note for note in group.laws[0].notes)
    with pytest.raises(UserError, match=r"there are 4 \(of 12\); fit_on=all takes those off"):
        fit(path, laws=["curve"], fit_on="front")


def test_without_a_curve_no_point_was_fitted_to_it(table: Path) -> None:
    groups = fit(table, targets=["loss"], laws=["joint"]).groups
    assert not any(point.was_fitted for group in groups for point in group.points)


def test_methods_are_compared_by_their_joint_laws_where_there_is_no_curve(table: Path) -> None:
    result = fit(table, targets=["loss"], laws=["joint"])
    comparison = result.comparisons[0]
    assert comparison.law == "joint"
    assert comparison.mean_ratio.high < 1
    law = next(group for group in result.groups if group.group == "clip").laws[0]
    parameters = {name: interval.value for name, interval in law.parameters.items()}
    flops, value = comparison.flops[20], comparison.second_value[20]
    sizes = np.geomspace(1e5, 1e10, 2001)
    assert value == pytest.approx(joint(sizes, flops / 6 / sizes, **parameters).min(), rel=1e-4)
    with pytest.raises(UserError, match="compare: caft has no fitted curve of loss"):
        fit(table, laws=["joint"], compare=["caft", "clip"], compare_by="curve")


@pytest.mark.parametrize(
    ("losses", "flat", "undetermined"),
    [
        (lambda n, d: 0.4 + 186 * n**-0.34, ["D"], ["b"]),
        (lambda n, d: 0.1 * n**0.1 + 62 * d**-0.28, ["N"], ["a"]),
        (lambda n, d: 0.1 * n**0.1 * (d / 1e6) ** 0.1, ["N", "D"], ["a", "b"]),
    ],
)
def test_a_loss_that_does_not_fall_has_no_best_use_of_compute(
    tmp_path: Path, losses: Any, flat: list[str], undetermined: list[str]
) -> None:
    """It may look as if the law were sure: exponents at the least that is tried do not scatter."""
    rows = []
    for method in ("caft", "clip"):
        made = ladder_rows(method)
        scatter = noise(len(made), 0.01, 1).tolist()
        for row, factor in zip(made, scatter, strict=True):
            row["loss"] = losses(row["params"], row["samples"]) * factor
        rows += made
    result = fit(write_rows(tmp_path / "t.csv", rows), targets=["loss"], compare_by="joint")
    law = next(law for law in result.groups[0].laws if law.law == "joint")
    assert (law.optima, law.optimal_exponents, law.flat) == ([], None, flat)
    said = f"without {' and '.join(undetermined)} no best N and D of a budget are told"
    assert said in law.notes
    for name in flat:
        assert any(re.fullmatch(f"loss (does|may) not fall with {name} .*", n) for n in law.notes)
    notes = result.comparisons[0].notes
    assert f"clip: loss may not fall with {' and '.join(flat)}" in notes
    assert any(note.startswith("clip: best N and D are not determined") for note in notes)


def test_a_best_use_that_no_run_has_tried_is_said(table: Path) -> None:
    """By default ten and a hundred times the largest budget are among those told."""
    law = fit(table, targets=["loss"], laws=["joint"]).groups[0].laws[0]
    assert law.flat == []
    assert [best.untried for best in law.optima[1:]] == [["size", "samples"]] * 2
    (note,) = (note for note in law.notes if "which no run has tried" in note)
    assert "1.8e+19 (N and D), 1.8e+20 (N and D) is outside what was trained" in note
    inside = fit(table, targets=["loss"], laws=["joint"], budgets=[1e15]).groups[0].laws[0]
    assert inside.optima[0].untried == []
    assert not any("which no run has tried" in note for note in inside.notes)


def test_no_error_is_above_1(tmp_path: Path) -> None:
    """Neither predictions, nor bands, optima, intervals or what methods are compared by."""
    rows = ladder_rows("caft", seed=1) + ladder_rows("clip", seed=2)
    largest = max(row["loss"] for row in rows)
    for row in rows:
        row["error"] = row["loss"] / largest
    path = write_rows(tmp_path / "t.csv", rows)
    result = fit(path, targets=["error"], fit_on="all", budgets=[1e9])
    (group, _), (comparison,) = result.groups, result.comparisons
    both = next(law for law in group.laws if law.law == "joint")
    assert (both.optima[0].value.value, both.optima[0].value.high) == (1, 1)
    assert "error cannot exceed 1: where the law does, that is told" in both.notes
    for law in group.laws:
        for band in law.bands:
            assert max(band.value + band.high) <= 1
    assert max(comparison.first_value + comparison.second_value) <= 1


def test_a_held_out_branch_of_a_fitted_trunk_is_named(tmp_path: Path) -> None:
    """What its seed did is in the fit: that is easier than a new run."""
    rows = rows_of_trunks(num_seeds=2)
    largest = max(row["flops"] for row in rows)
    settings = {"targets": ["loss"], "laws": ["joint"], "holdout_above": 0.9 * largest}
    for run, is_said in (("trunk", True), ("", False)):
        changed = [row | {"run": row["run"] if run else ""} for row in rows]
        law = fit(write_rows(tmp_path / "t.csv", changed), **settings).groups[0].laws[0]
        assert len(law.held_out) == 2
        assert any("branches of the same trunk are fitted" in n for n in law.notes) == is_said


def test_what_no_law_needs_may_be_anything(tmp_path: Path) -> None:
    changes = {"batch": "4k", "lr": "None", "gpu_hours": "inf", "samples": 0}
    rows = [row | changes for row in ladder_rows()]
    path = write_rows(tmp_path / "t.csv", rows)
    result = fit(path, targets=["loss"], laws=["curve"])
    assert result.groups[0].laws[0].law == "curve"
    assert set(result.unreadable) == {"batch", "gpu_hours", "samples"}
    assert result.unreadable["batch"].startswith("24 of 24 fields are no such figure, as '4k'")
    assert "  batch: 24 of 24 fields" in format_result(result)
    with pytest.raises(UserError, match="samples is 0; it must be above 0"):
        fit(path, targets=["loss"])


def test_a_group_can_be_any_column(tmp_path: Path) -> None:
    """Data sets are compared as methods are; one with too few points says so and stops nothing."""
    rows = [row | {"data": "drawn"} for row in ladder_rows(A=0.7 * JOINT["A"])]
    rows += [row | {"data": "web"} for row in ladder_rows()[:4]]
    result = fit(write_rows(tmp_path / "t.csv", rows), by="data", targets=["loss"])
    assert [(group.group, len(group.laws)) for group in result.groups] == [("drawn", 2), ("web", 0)]
    assert "needs points at 6 places" in result.groups[1].not_fitted["curve"]
    asked = fit(tmp_path / "t.csv", by="data", targets=["loss"], laws=["curve"])
    assert [len(group.laws) for group in asked.groups] == [1, 0]
    assert result.not_compared == {
        "drawn against web, loss": "compare: web has no fitted curve or joint of loss"
    }
    with pytest.raises(UserError, match="web has no fitted curve or joint of loss"):
        fit(tmp_path / "t.csv", by="data", targets=["loss"], compare=["drawn", "web"])


def test_a_group_without_a_target_does_not_stop_the_others(tmp_path: Path) -> None:
    rows = ladder_rows() + [row | {"method": "siglip", "loss": ""} for row in ladder_rows()]
    result = fit(write_rows(tmp_path / "t.csv", rows), targets=["loss"], laws=["curve"])
    assert [(group.group, len(group.laws)) for group in result.groups] == [
        ("caft", 1),
        ("siglip", 0),
    ]
    assert result.groups[1].not_fitted == {"curve": "siglip, loss: no row has any to fit"}
    assert "siglip has no fitted curve" in next(iter(result.not_compared.values()))


def test_a_perfect_run_is_left_out_of_its_error_and_named(tmp_path: Path) -> None:
    rows = ladder_rows()
    rows[3]["error"] = 0
    result = fit(write_rows(tmp_path / "t.csv", rows), laws=["joint"])
    loss, error = result.groups
    assert (len(loss.points), len(error.points)) == (24, 23)
    assert f"{rows[3]['name']}: error is 0, which has no logarithm: left out" in error.laws[0].notes
    assert not any("logarithm" in note for note in loss.laws[0].notes)


def test_what_a_table_does_not_allow_is_said(tmp_path: Path) -> None:
    rows = [row for row in ladder_rows() if row.pop("params") and row.pop("params_text")]
    result = fit(write_rows(tmp_path / "t.csv", rows), targets=["loss"])
    assert [law.law for law in result.groups[0].laws] == ["curve"]
    reason = result.groups[0].not_fitted["joint"]
    assert "no column params; give columns.params=NAME, or joint_size=flops_per_sample" in reason
    by_compute = fit(tmp_path / "t.csv", targets=["loss"], joint_size="flops_per_sample")
    assert by_compute.groups[0].laws[1].compute_per_sample.k == pytest.approx(1)


def rows_with(**fields: Any) -> list[dict[str, Any]]:
    return [row | fields for row in ladder_rows()]


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        (
            ladder_rows()[:3],
            {},
            r"needs points at 6 places or more; there are [23] \(of 3\); more runs",
        ),
        (
            rows_with(flops=1e15, params=1e7),
            {},
            r"flops is 1e\+15 in all 24 points",
        ),
        (rows_with(flops=1e15), {"laws": ["curve"]}, r"flops is 1e\+15 in all 24"),
        (
            rows_with(loss=2.0),
            {"targets": ["loss"]},
            "all 24 points have the same",
        ),
        (rows_with(params=1e7), {"laws": ["joint"]}, r"params is 1e\+07 in all 24 points"),
        (
            ladder_rows(),
            {"compare": ["caft", "clip"]},
            "compare: .* has no method 'clip', only caft",
        ),
        (ladder_rows(), {"compare": ["caft"]}, "it must be two different methods"),
        (ladder_rows(), {"holdout_above": 1e30}, "no point of .* is above it; the largest has"),
        (
            ladder_rows(),
            {"holdout_above": 1e10},
            r"holdout_above=1e\+10 is below all 24 points, .*; they begin at 6e\+12 training FLOPs",
        ),
        (ladder_rows(), {"compare": ["caft", "caft"]}, "it must be two different methods"),
        (ladder_rows(), {"seed": -1}, "seed=-1: it must be at least 0"),
        (ladder_rows(), {"bins_per_decade": np.inf}, "bins_per_decade=inf: it must be a finite"),
        (ladder_rows(), {"huber_delta": np.inf}, "huber_delta=inf: it must be a finite"),
        (ladder_rows(), {"targets": ["los"]}, "targets is 'los'; choose loss or error"),
        (ladder_rows(), {"budgets": [-1.0]}, "budgets has -1.0"),
        (ladder_rows(), {"level": 1.5}, "level=1.5: it must be between 0 and 1"),
        (ladder_rows(), {"by": "metod"}, "by=metod: .* the nearest is 'method'"),
    ],
)
def test_mistakes(
    tmp_path: Path, rows: list[dict[str, Any]], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        fit(write_rows(tmp_path / "results.csv", rows), **settings)


def test_help_names_the_keys(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    told = capsys.readouterr().out
    assert "holdout_above=.inf" in told
    assert "training FLOPs; points above are predicted, not fitted" in told
