"""Two methods run against run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tools.scaling_laws.synthetic import write_rows
from tools.scaling_laws.matched import Matched, match_runs
from tools.scaling_laws.table import read_table

#: Of four sizes and three lengths, caft's over clip's.
RATIOS = np.array([[1.01, 1.03, 1.07], [1.0, 1.05, 1.06], [1.02, 1.06, 1.12], [1.0, 1.03, 1.05]])


def rows(num_sizes: int = 4, **changes: Any) -> list[dict[str, Any]]:
    return [
        {
            "name": f"{method}-{size}-{length}",
            "params": 1e6 * 2**size * (1.03 if method == "clip" else 1),
            "samples": 8000 * 2**length + (16 if method == "clip" else 0),
            "flops": 1e9 * 2**size * 8000 * 2**length * (1.1 if method == "clip" else 1),
            "error": 0.5 * (RATIOS[size, length] if method == "caft" else 1) / (1 + length),
            "method": method,
            "seed": 0,
            "run": f"{method}-{size}",
            **(changes if method == "clip" else {}),
        }
        for method in ("caft", "clip")
        for size in range(num_sizes)
        for length in range(3)
    ]


def match(folder: Path, given: list[dict[str, Any]]) -> Matched | None:
    groups = read_table(str(write_rows(folder / "t.csv", given)), "auto", {}, {}).groups("method")
    names = ("caft", "clip")
    return match_runs(names, groups["caft"], groups["clip"], "method", "error", 0.9)


def test_a_pair_of_trunks_is_one_observation(tmp_path: Path) -> None:
    matched = match(tmp_path, rows())
    assert matched is not None
    assert matched.num_pairs == 4 and matched.flops_ratio == pytest.approx(1 / 1.1)
    trends = np.log(RATIOS[:, 2] / RATIOS[:, 0])
    reach = 2.353363 * trends.std(ddof=1) / 2  # the quantile of three degrees of freedom
    assert matched.trend.value == pytest.approx(np.exp(trends.mean()))
    assert matched.trend.low == pytest.approx(np.exp(trends.mean() - reach), rel=1e-6)
    assert matched.trend.high == pytest.approx(np.exp(trends.mean() + reach), rel=1e-6)
    assert matched.trend_probability < 0.02
    assert matched.ratio.value == pytest.approx(np.exp(np.log(RATIOS).mean()))
    assert [(length.samples, length.num_pairs) for length in matched.lengths] == [
        (8000, 4),
        (16000, 4),
        (32000, 4),
    ]
    longest = np.exp(np.log(RATIOS[:, 2]).mean())
    assert matched.lengths[2].ratio.value == pytest.approx(longest)


def test_runs_without_trunks_pair_by_model_and_seed(tmp_path: Path) -> None:
    """A ladder of cosine runs has a `run` a row; two seeds of a model are two observations."""
    given = rows(num_sizes=2) + rows(num_sizes=2, seed=0)
    for number, row in enumerate(given):
        row |= {"seed": number // 12, "model": row["run"], "run": row["name"] + str(number)}
    matched = match(tmp_path, given)
    assert matched is not None
    assert (matched.num_pairs, matched.num_unmatched) == (4, 0)
    assert [length.num_pairs for length in matched.lengths] == [4, 4, 4]
    assert matched.ratio.value == pytest.approx(np.exp(np.log(RATIOS[:2]).mean()))


def test_a_perfect_run_and_a_gap_have_no_ratio(tmp_path: Path) -> None:
    given = rows()
    given[0]["error"], given[-1]["error"] = 0, ""
    matched = match(tmp_path, given)
    assert matched is not None
    assert [length.num_pairs for length in matched.lengths] == [3, 4, 3]


@pytest.mark.parametrize(
    "given", [rows(num_sizes=2), rows(seed=1), rows(params=5e5), rows(samples=123)]
)
def test_what_has_not_its_like_is_not_compared(tmp_path: Path, given: list[dict[str, Any]]) -> None:
    assert match(tmp_path, given) is None
