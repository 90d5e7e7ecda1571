"""``report.html``: what a scaling experiment gave, to look at. One file, nothing fetched."""

import base64
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import jinja2
from omegaconf import MISSING

from recaption.common.config import UserError, load_config, print_json
from recaption.common.files import atomic_write, read_json, sha256_file
from tools.scaling_laws.columns import TARGETS, is_of_a_ladder, labels_of
from tools.scaling_laws.compare import first_middle_last
from tools.scaling_laws.export import show, shown_columns, table_rows, write_exports
from tools.scaling_laws.fit import FIT, needed_columns
from tools.scaling_laws.plots import draw_compute, draw_ratio, draw_samples, tell_bands
from tools.scaling_laws.results import VERSION, FitResult
from tools.scaling_laws.table import Table, read_table

USAGE = """usage: python -m tools.scaling_laws report table=RESULTS.csv [output=FOLDER] [--json]

Writes report.html (plots and the table, in one file), the plots as SVG, table.csv, table.json and
table.tex. The
laws are those of fit.json beside the table, which `fit` writes; without it points alone are drawn.
"""

REPORT = "report.html"
_KINDS = ("compute", "samples")  # what a target is drawn over
_TEMPLATE = Path(__file__).with_name("report.html.jinja")


@dataclass
class ReportConfig:
    table: str = MISSING  # as given to `fit`
    fit: str = ""  # what `fit` wrote; empty: fit.json beside the table, if it is there
    output: str = ""  # folder; empty: `report` beside the table
    title: str = "Scaling laws"
    # How the table is read, as in `fit`; with a fit, as it was fitted.
    format: str = "auto"
    columns: dict[str, str] = field(default_factory=dict)
    where: dict[str, str] = field(default_factory=dict)


def main(argv: list[str]) -> None:
    config = load_config(ReportConfig, argv, USAGE)
    page = write_report(config)
    print(f"report: {page}")
    print_json(argv, {"report": str(page)})


def write_report(config: ReportConfig) -> Path:
    """Writes all files and returns the page's path.

    Raises:
        UserError: no table, or a fit of another table or version, or of other rows.
    """
    folder = Path(config.table.split(",")[0]).parent
    fit = _read_fit(config, folder)
    table = _read_table(config, fit)
    labels = labels_of(table.mapping, fit["settings"]["where"] if fit else config.where)
    rows = table_rows(table)
    groups = fit["groups"] if fit else _unfitted(table)
    output = Path(config.output or folder / "report")
    output.mkdir(parents=True, exist_ok=True)
    write_exports(output, rows)
    targets = list(dict.fromkeys(group["target"] for group in groups))
    columns = shown_columns(rows)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["figure"] = lambda value: f"{value:.4g}"
    environment.filters["percent"] = lambda share: f"{100 * share:.0f} %"
    sections = [_section(groups, target, labels[target]) for target in targets]
    comparisons = [
        _compared(comparison, labels[comparison["target"]])
        for comparison in (fit["comparisons"] if fit else [])
    ]
    _write_plots(output, sections, comparisons)
    page = environment.from_string(_TEMPLATE.read_text()).render(
        title=config.title,
        table=config.table,
        left_out=table.left_out,
        unfinished=table.unfinished,
        unreadable=table.unreadable,
        is_of_a_ladder=is_of_a_ladder(table.mapping),
        fit=fit,
        sections=sections,
        labels=labels,
        comparisons=comparisons,
        columns=[column.title for column in columns],
        rows=[[show(column, row) for column in columns] for row in rows],
    )
    with atomic_write(output / REPORT) as path:
        path.write_text(page)
    return output / REPORT


def _read_fit(config: ReportConfig, folder: Path) -> dict[str, Any] | None:
    path = Path(config.fit or folder / FIT)
    if not config.fit and not path.exists():
        return None
    fit: dict[str, Any] = read_json(path)
    again = f"fit again: python -m tools.scaling_laws fit table={config.table}"
    if not isinstance(fit, dict):
        raise UserError(f"{path} is not what `fit` writes: {again}")
    if fit.get("version") != VERSION:
        raise UserError(f"{path} is of version {fit.get('version')}, not {VERSION}: {again}")
    if missing := [each.name for each in fields(FitResult) if each.name not in fit]:
        raise UserError(f"{path} has no {', '.join(missing)}: {again}")
    sums = [sha256_file(file) for file in config.table.split(",")]
    if fit["table_sha256"] != sums:
        raise UserError(f"{path} is of another table, or {config.table} has changed: {again}")
    return fit


def _read_table(config: ReportConfig, fit: dict[str, Any] | None) -> Table:
    """The rows that were fitted, by the same names."""
    given = {"format": config.format, "columns": dict(config.columns), "where": dict(config.where)}
    if fit is None:
        # Nobody asks that the figures be such as a law can be fitted to.
        return read_table(config.table, **_as_arguments(given), needed=())
    settings = fit["settings"]
    for name, value in given.items():
        if value not in (settings[name], getattr(ReportConfig(), name)):
            raise UserError(
                f"{name}={value}: the fit was made with {settings[name]}; fit again with it, or "
                "leave it out"
            )
    needed = needed_columns(settings["targets"], settings["laws"], settings["joint_size"])
    return read_table(config.table, **_as_arguments(settings), needed=needed, by=settings["by"])


def _as_arguments(settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "format_name": settings["format"],
        "columns": settings["columns"],
        "where": settings["where"],
    }


def _unfitted(table: Table) -> list[dict[str, Any]]:
    """Points as `fit.json` has them, without any law."""
    groups = []
    for name, part in table.groups("method").items():
        rows = table_rows(part)
        for target in TARGETS:
            points = [
                {
                    **{key: row.get(key) for key in ("name", "flops", "params", "samples")},
                    **{key: row.get(key) or "" for key in ("model", "run")},
                    "value": row[target],
                    "on_front": True,
                    "held_out": False,
                }
                for row in rows
                if row.get(target)  # 0 has no place on a logarithmic axis
            ]
            if points:
                groups.append({"group": name, "target": target, "points": points, "laws": []})
    return groups


def _section(groups: list[dict[str, Any]], target: str, label: str) -> dict[str, Any]:
    chosen = [group for group in groups if group["target"] == target]
    points = [point for group in chosen for point in group["points"]]
    return {
        "target": target,
        "groups": chosen,
        "by_compute": draw_compute(chosen, label),
        "lines": tell_bands(chosen),
        "by_samples": draw_samples(points, label),
    }


def _compared(comparison: dict[str, Any], label: str) -> dict[str, Any]:
    return {
        "figures": comparison,
        "plot": draw_ratio(comparison, label),
        "shown": first_middle_last(len(comparison["multipliers"])),
    }


def _write_plots(
    output: Path, sections: list[dict[str, Any]], comparisons: list[dict[str, Any]]
) -> None:
    """The page's plots as files, to be shown elsewhere: on white, as a page may be dark."""
    plots = {f"{s['target']}_by_{by}": s[f"by_{by}"] for s in sections for by in _KINDS}
    for comparison in comparisons:
        names = (comparison["figures"][key] for key in ("target", "first", "second"))
        plots["_".join(["ratio", *names])] = comparison["plot"]
    for name, uri in plots.items():
        drawn = base64.b64decode(uri.partition(",")[2]).decode()
        on_white = re.sub(
            r"(<svg[^>]*>)", r'\1<rect width="100%" height="100%" fill="white"/>', drawn
        )
        with atomic_write(output / f"{re.sub('[^A-Za-z0-9_.-]', '-', name)}.svg") as path:
            path.write_text(on_white)
