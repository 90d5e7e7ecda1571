"""configs/scaling/scenes.sh fits and reports the ladder that it has run."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.places import CONFIGS

SCRIPT = CONFIGS / "scaling/scenes.sh"


def commands(folder: Path, *words: str, **variables: str) -> list[str]:
    """What the script calls Python with, after `-m tools.scaling_laws`; nothing is run."""
    python, called = folder / "python", folder / "called"
    python.write_text(f'#!/bin/sh\nprintf "%s|" "$@" >> "{called}"\necho >> "{called}"\n')
    python.chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if k != "HOLDOUT_ABOVE"}
    environment |= {"PYTHON": str(python), **variables}
    subprocess.run([SCRIPT, *words], cwd=CONFIGS.parent, env=environment, check=True)
    begin = "-m|tools.scaling_laws|"
    return [
        line.removeprefix(begin).removesuffix("|")
        for line in called.read_text().splitlines()
        if line.startswith(begin)
    ]


@pytest.mark.parametrize(
    ("words", "variables", "fitted"),
    [
        ([], {}, "fit|table=scaling/scenes/results.csv|holdout_above=3e13"),
        (["output=a b"], {}, "fit|table=a b/results.csv|holdout_above=3e13"),
        (["samples=[960]"], {}, "fit|table=scaling/scenes/results.csv"),
        (
            ["samples=[960]", "output=b"],
            {"HOLDOUT_ABOVE": "1e12"},
            "fit|table=b/results.csv|holdout_above=1e12",
        ),
        ([], {"HOLDOUT_ABOVE": ""}, "fit|table=scaling/scenes/results.csv"),
    ],
)
def test_what_is_run_is_what_is_fitted(
    tmp_path: Path, words: list[str], variables: dict[str, str], fitted: str
) -> None:
    plan, run, fit, report = commands(tmp_path, *words, **variables)
    for command in (plan, run):
        assert command.split("|")[1:] == ["configs/scaling/scenes.yaml", *words]
    assert fit == fitted
    assert report.split("|")[:2] == ["report", fitted.split("|")[1]]
