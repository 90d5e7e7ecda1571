"""How often intervals hold the truth is counted by the laws that made the tables."""

import json
import re

import pytest

from recaption.common.errors import UserError
from tools.scaling_laws import coverage
from tools.scaling_laws.coverage import CoverageConfig, main, measure_coverage
from tools.scaling_laws.fitting import FittedLaw


def few(studies: list[str]) -> dict[str, dict[str, tuple[int, int]]]:
    return measure_coverage(CoverageConfig(studies=studies, num_tables=2, num_replicates=30))


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    main(["studies=[methods]", "num_tables=2", "num_replicates=20", "--json"])
    *text, last = capsys.readouterr().out.splitlines()
    assert list(json.loads(last)) == ["methods"]
    assert text[0] == "methods: two ladders of one law, 24 runs that each have a scatter of 1.5 %"
    for line, law in zip(text[1:], ("joint", "curve"), strict=True):
        assert re.fullmatch(rf" +\d+% of 2: the mean ratio of two .* by the {law}", line)


@pytest.mark.parametrize("study", ["few_runs", "trunks", "trunks_unknown"])
def test_a_study(study: str) -> None:
    found = few([study])[study]
    assert {count for _, count in found.values()} == {2}
    assert sum(held for held, _ in found.values()) > 0.7 * 2 * len(found)


def test_a_truth_that_is_another_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits that are off by a tenth: nearly no interval of a value holds it."""
    values = FittedLaw.values
    monkeypatch.setattr(FittedLaw, "values", lambda *args: 1.1 * values(*args))
    found = few(["runs"])["runs"]
    assert found["the curve's value at 1 times the largest compute"][0] == 0
    assert found["the joint law's best value at 1 times the largest compute"][0] == 0


def test_a_study_that_there_is_not() -> None:
    assert "runs" in coverage._STUDIES
    with pytest.raises(UserError, match=r"studies is .trunk.; .*trunks"):
        few(["trunk"])
