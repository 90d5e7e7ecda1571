"""The table of a scaling experiment in the forms that people take it in."""

import csv
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recaption.common.files import atomic_write
from tools.scaling_laws.columns import is_of_a_ladder
from tools.scaling_laws.table import Table


@dataclass(frozen=True)
class Column:
    """How a figure is shown to people."""

    title: str
    name: str  # in the table
    show: Callable[[Any], str]


def _number(value: float) -> str:
    return f"{value:,.0f}"


def _millions(value: float) -> str:
    return f"{value / 1e6:,.2f}"


def _short(value: float) -> str:
    return f"{value:.3g}"


def _readable(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


SHOWN = (
    Column("model", "model", str),
    Column("image M", "params_image", _millions),
    Column("text M", "params_text", _millions),
    Column("N M", "params", _millions),
    Column("GMACs/sample", "forward_macs_per_sample", lambda value: _readable(value / 1e9)),
    Column("GFLOPs/sample", "flops_per_sample", lambda value: _readable(value / 1e9)),
    Column("samples", "samples", _number),
    Column("unique", "unique_samples", _number),
    Column("batch", "batch", _number),
    Column("LR", "lr", _short),
    Column("FLOPs", "flops", _short),
    Column("GPU-hours", "gpu_hours", _readable),
    Column("samples/s", "samples_per_second", lambda value: f"{value:,.1f}"),
    Column("loss", "loss", lambda value: f"{value:.4f}"),
    Column("R@1", "r1", lambda value: f"{value:.2%}"),
    Column("1 - error", "score", lambda value: f"{value:.2%}"),
    Column("hardware", "hardware", str),
)


def table_rows(table: Table) -> list[dict[str, Any]]:
    """Rows by Canopy's names, None for a gap; beside `error`, `r1` of a ladder, else `score`."""
    rows = []
    score = "r1" if is_of_a_ladder(table.mapping) else "score"
    for index in range(len(table)):
        row: dict[str, Any] = {name: column[index] for name, column in table.texts.items()}
        for name, column in table.numbers.items():
            value = float(column[index])
            row[name] = None if math.isnan(value) else value
        error = row.get("error")
        row[score] = None if error is None else 1 - error
        rows.append(row)
    return rows


def shown_columns(rows: Sequence[dict[str, Any]]) -> list[Column]:
    """Those that any row has something in."""
    return [c for c in SHOWN if any(row.get(c.name) not in (None, "") for row in rows)]


def show(column: Column, row: dict[str, Any]) -> str:
    value = row.get(column.name)
    return "" if value is None else column.show(value)


def write_exports(folder: Path, rows: list[dict[str, Any]]) -> None:
    """`table.csv` and `table.json` with all figures, `table.tex` as shown (package booktabs)."""
    with atomic_write(folder / "table.csv") as path, path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    with atomic_write(folder / "table.json") as path:
        path.write_text(json.dumps(rows, indent=1, allow_nan=False))
    with atomic_write(folder / "table.tex") as path:
        path.write_text(to_latex(rows))


def to_latex(rows: list[dict[str, Any]]) -> str:
    columns = shown_columns(rows)
    lines = [[escape(column.title) for column in columns]]
    lines += [[escape(show(column, row)) for column in columns] for row in rows]
    head, *body = (" & ".join(cells) + r" \\" for cells in lines)
    return "\n".join(
        [
            rf"\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}",
            *(r"\toprule", head, r"\midrule", *body, r"\bottomrule"),
            r"\end{tabular}",
            "",
        ]
    )


def escape(text: str) -> str:
    """Without what LaTeX would take for a command or, after a row, for its option; on one line."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special["["] = "{[}"
    on_one_line = " ".join(text.split())
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in on_one_line)
