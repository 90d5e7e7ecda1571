"""The page and the tables, from results that follow a law."""

import base64
import csv
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from recaption.common.config import UserError
from tests.tools.scaling_laws.synthetic import write_rows
from tools.scaling_laws import fit, report
from tools.scaling_laws.export import SHOWN, escape, show
from tools.scaling_laws.outcome import COLUMNS
from tools.scaling_laws.plots import _lines, draw_compute


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods, four sizes, three lengths; one run has failed."""
    path = tmp_path_factory.mktemp("report") / "results.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for method, scale in (("caft", 1.0), ("clip", 1.1)):
            for size in range(4):
                for length in range(3):
                    params, samples = 1e6 * 2**size, 1e4 * 2**length
                    flops = 6 * params * samples
                    loss = scale * (1 + (flops / 1e9) ** -0.3) * 1.002 ** ((size * length) % 3)
                    writer.writerow(
                        {
                            "name": f"{method}-{size}-{length}",
                            "model": f"{method}_{size}",
                            "params_image": params / 2,
                            "params_text": params,
                            "params": params,
                            "flops_per_sample": 6 * params,
                            "samples": samples,
                            "batch": 48,
                            "unique_samples": 5000,
                            "lr": 1e-3,
                            "flops": flops,
                            "loss": loss,
                            "gpu_hours": 0.5,
                            "samples_per_second": 30.5,
                            "error": loss / 4,
                            "method": method,
                            "data": "made",
                            "seed": 0,
                            "status": "done",
                            "run": f"{method}-{size}",
                        }
                    )
        writer.writerow({"name": "clip-9", "status": "failed", "method": "clip"})
    return path


def test_a_page_with_laws_and_what_was_held_out(results: Path, tmp_path: Path) -> None:
    words = [f"table={results}", f"output={tmp_path}", "num_replicates=20"]
    fit.main([*words, "holdout_above=1.5e12", "fit_on=all", "budgets=[1e12]"])
    arguments = [f"table={results}", f"fit={tmp_path / 'fit.json'}", f"output={tmp_path / 'page'}"]
    report.main([*arguments, "title=A <ladder>"])
    page = (tmp_path / "page" / "report.html").read_text()
    assert "<h1>A &lt;ladder&gt;</h1>" in page
    assert page.count("<img") == page.count("data:image/svg+xml;base64,") == 6
    assert "http" not in page  # nothing is fetched
    plots = {path.name: path.read_text() for path in (tmp_path / "page").glob("*.svg")}
    assert len(plots) == 6 and "error_by_compute.svg" in plots
    for plot in plots.values():
        assert ElementTree.fromstring(plot)[0].get("fill") == "white"
    fitted = json.loads((tmp_path / "fit.json").read_text())
    held_out = fitted["groups"][0]["laws"][0]["held_out"]
    assert held_out and all(f"<td>{point['name']}</td>" in page for point in held_out)
    assert "caft scales better in" in page
    assert "1 (status=failed)" in page and "Failed: clip-9." in page
    for title in ("image M", "text M", "GFLOPs/sample", "GPU-hours", "R@1"):
        assert f"<th>{title}</th>" in page
    assert "<td>30.5</td>" in page


@pytest.mark.parametrize(
    ("laws", "at", "told"),
    [
        ("[curve,joint]", "compute", "Lines: L(C) (caft, clip)."),
        ("[joint]", "best", "Lines: L(N, D) at the best N and D of each compute, where"),
    ],
)
def test_a_ladder_of_four_sizes_and_three_lengths_has_lines_and_bands(
    results: Path, tmp_path: Path, laws: str, at: str, told: str
) -> None:
    """Its front is too small for a curve."""
    words = [f"table={results}", f"output={tmp_path}", "num_replicates=20", "bins_per_decade=2"]
    fit.main([*words, f"laws={laws}"])
    first, _, second, _ = json.loads((tmp_path / "fit.json").read_text())["groups"]
    assert sum(point["on_front"] for point in first["points"]) < 6
    bands = [band for group in (first, second) for band in group["laws"][0]["bands"]]
    assert bands and {band["at"] for band in bands} == {at}
    report.main([f"table={results}", f"fit={tmp_path / 'fit.json'}", f"output={tmp_path}"])
    page = (tmp_path / "report.html").read_text()
    assert told in page
    drawn = base64.b64decode(page.split("data:image/svg+xml;base64,")[1].split('"')[0]).decode()
    assert drawn.count('id="FillBetweenPolyCollection_') == len(bands)


def test_more_groups_than_colours_are_all_drawn() -> None:
    groups = [
        {
            "group": f"m{i}",
            "laws": [],
            "points": [{"flops": 1e9, "value": 1 + i, "held_out": False, "on_front": True}],
        }
        for i in range(9)
    ]
    drawn = base64.b64decode(draw_compute(groups, "loss").split(",")[1]).decode()
    assert drawn.count('id="PathCollection_') == 2 * 9  # in the plot and in its legend


def test_tables_for_others(results: Path, tmp_path: Path) -> None:
    report.main([f"table={results}", f"output={tmp_path}"])
    rows = json.loads((tmp_path / "table.json").read_text())
    assert len(rows) == 24 and rows[0]["r1"] == pytest.approx(1 - rows[0]["error"])
    with (tmp_path / "table.csv").open() as file:
        assert [row["name"] for row in csv.DictReader(file)] == [row["name"] for row in rows]
    latex = (tmp_path / "table.tex").read_text()
    assert latex.startswith(r"\begin{tabular}{lrrrrrrrrrrrrr}")
    assert latex.count(r"\\") == 25 and r"caft\_0 & 0.50 & 1.00 & 1.00" in latex


@pytest.mark.parametrize(
    ("hours", "shown"),
    [(0.5, "0.5"), (0.0123456, "0.0123"), (12.3456, "12.3"), (12345.6, "12,346")],
)
def test_hours_are_read_by_people(hours: float, shown: str) -> None:
    (column,) = (column for column in SHOWN if column.name == "gpu_hours")
    assert show(column, {"gpu_hours": hours}) == shown


def imagenet(folder: Path) -> Path:
    """As published: accuracies of two tests, two methods whose names are no formulas."""
    rows = [
        {
            "gmacs_total": 1e3 * 2.0**i,
            "acc1": 0.1 + 0.05 * i + 0.01 * j,
            "downstream_dataset": test,
            "namespace": name,
            "gpu_hours": "inf",
            "arch": "[a\nb",
            "name": f"{name}{i}{test}",
        }
        for i in range(7)
        for j, name in enumerate(("caft$_{x$", "_clip"))
        for test in ("imagenet1k", "vtab")
    ]
    return write_rows(folder / "zeroshot.csv", rows)


READ = ["where.downstream_dataset=imagenet1k", "columns.method=namespace"]
READ += ["columns.gpu_hours=gpu_hours"]


@pytest.mark.parametrize("is_fitted", [True, False])
def test_a_table_of_others(tmp_path: Path, is_fitted: bool) -> None:
    """It is labelled as what it is, and names are text."""
    path = imagenet(tmp_path)
    words = [f"table={path}", f"output={tmp_path / 'page'}"]
    if is_fitted:
        fit.main([f"table={path}", "num_replicates=20", *READ])
        with pytest.raises(
            UserError, match=r"where={'downstream_dataset': 'vtab'}: the fit was ma"
        ):
            report.main([*words, "where.downstream_dataset=vtab"])
    else:
        with pytest.raises(UserError, match=r"as in where\.downstream_dataset=imagenet1k"):
            report.main(words)
    report.main([*words, *READ])
    page = (tmp_path / "page" / "report.html").read_text()
    assert "<h2>Error, 1 - acc1 (imagenet1k)</h2>" in page and "R@1" not in page
    assert "<th>1 - error</th>" in page
    drawn = (tmp_path / "page" / "error_by_compute.svg").read_text()
    for text in ("caft$_{x$", "_clip", "error, 1 - acc1 (imagenet1k)"):
        assert f"<!-- {text} -->" in drawn
    rows = json.loads((tmp_path / "page" / "table.json").read_text(), parse_constant=pytest.fail)
    assert len(rows) == 14 and rows[0]["score"] == pytest.approx(0.1)
    assert "gpu_hours: 14 of 14 fields are no such figure, as &#39;inf&#39;" in page
    latex = (tmp_path / "page" / "table.tex").read_text()
    assert latex.count("\n{[}a b & ") == 14


def test_a_line_is_one_run() -> None:
    """Two sets of one model are two lines; runs of one point each are one."""
    points = [
        {"model": "caft-s", "run": run, "samples": samples, "value": 1.0}
        for run in ("d8", "d16")
        for samples in (1, 2)
    ]
    assert _lines(points) == {run: [(1, 1.0), (2, 1.0)] for run in ("d8", "d16")}
    alone = [point | {"run": f"{i}"} for i, point in enumerate(points)]
    assert {name: len(line) for name, line in _lines(alone).items()} == {"caft-s": 4}


def test_what_latex_would_take_for_a_command() -> None:
    assert escape("50% of a_b & c^2") == r"50\% of a\_b \& c\textasciicircum{}2"


def test_a_fit_of_another_table_is_refused(results: Path, tmp_path: Path) -> None:
    fit.main([f"table={results}", f"output={tmp_path}", "num_replicates=20", "laws=[joint]"])
    other = tmp_path / "results.csv"
    other.write_text(results.read_text().replace("caft-0-0", "caft-x"))
    with pytest.raises(UserError, match=r"is of another table, or .* has changed: fit again"):
        report.main([f"table={other}", f"output={tmp_path / 'page'}"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda fit: [fit], r"fit\.json is not what `fit` writes: fit again"),
        (lambda fit: fit.pop("groups") and fit, r"fit\.json has no groups: fit again"),
    ],
)
def test_a_fit_that_is_none_is_refused(
    results: Path, tmp_path: Path, change: Any, message: str
) -> None:
    fit.main([f"table={results}", f"output={tmp_path}", "num_replicates=20", "laws=[joint]"])
    path = tmp_path / "fit.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(UserError, match=message):
        report.main([f"table={results}", f"fit={path}", f"output={tmp_path / 'page'}"])
