"""Predictions and comparisons in docs/scaling_scenes.md are what the fit says of its table."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tools.scaling_laws.fit import main

DOCS = Path(__file__).parents[3] / "docs"
LENGTHS = ("8,000 samples", "16,000", "32,000")


@pytest.fixture(scope="module")
def fit(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("scenes")
    shutil.copy(DOCS / "scaling_scenes" / "results.csv", folder)
    main([f"table={folder / 'results.csv'}", "holdout_above=3e13"])
    tree: dict[str, Any] = json.loads((folder / "fit.json").read_text())
    return tree


def told(begin: str) -> list[float]:
    """The numbers behind the beginning of a line."""
    text = (DOCS / "scaling_scenes.md").read_text()
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {begin} |"))
    return [float(number) for number in re.findall(r"\d+\.\d+", line.removeprefix(f"| {begin}"))]


def ends(figure: dict[str, float]) -> list[float]:
    return [figure["value"], figure["low"], figure["high"]]


@pytest.mark.parametrize("method", ["caft", "clip"])
def test_the_held_out_runs(method: str, fit: dict[str, Any]) -> None:
    (group,) = (g for g in fit["groups"] if (g["group"], g["target"]) == (method, "error"))
    assert [law["law"] for law in group["laws"]] == ["curve", "joint"]
    held_out = [run for law in group["laws"] for run in law["held_out"]]
    assert [run["name"] for run in held_out] == [f"{method}-l-seed0-s32000"] * 2
    assert all(run["is_inside"] for run in held_out)
    measured = [held_out[0]["measured"], *(n for run in held_out for n in ends(run["predicted"]))]
    # Intervals are of simulated runs, whose fits end a little elsewhere on another processor.
    assert told(method.upper()) == pytest.approx(measured, rel=0.03)


def test_which_scales_better(fit: dict[str, Any]) -> None:
    (matched,) = (m for m in fit["matched"] if m["target"] == "error")
    assert matched["num_pairs"] == 4
    for name, length in zip(LENGTHS, matched["lengths"], strict=True):
        assert told(name) == pytest.approx(ends(length["ratio"]), abs=6e-4)
    assert told("growth from 8,000 to 32,000") == pytest.approx(ends(matched["trend"]), abs=6e-4)
    (comparison,) = (c for c in fit["comparisons"] if c["target"] == "error")
    assert ends(comparison["ratio"][-1]) == pytest.approx([1.108, 1.024, 1.202], rel=0.03)
