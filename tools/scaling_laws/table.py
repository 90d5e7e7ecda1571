"""Reads the points of a scaling experiment: one row a run, or a branch of one."""

import math
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from recaption.common.errors import UserError
from tools.scaling_laws.columns import NUMBERS, TARGETS, TEXTS, Expression, lacks, map_columns
from tools.scaling_laws.laws import Floats
from tools.scaling_laws.mixed import check_choices, check_distinct, same

#: Anything but a number above zero is none of these.
_POSITIVE = ("params_image", "params_text", "params", "flops_per_sample", "samples", "flops")
#: What a table needs if nobody says which laws are fitted to it.
NEEDED = (*_POSITIVE, *TARGETS)
#: Fields that are empty, whatever stands there.
_GAPS = ("", "na", "n/a", "none", "null")
#: What the rows are called that a column groups with a gap.
_GAP_GROUP = "(none)"
_FINISHED = ("done", "ok", "complete", "completed", "finished", "success", "succeeded")


@dataclass(frozen=True)
class Table:
    """Rows of points, column by column.

    ``texts`` and ``numbers`` have Canopy's names and units, an empty field is ``""`` or NaN;
    ``others`` are the columns that no name was known for, as they stand in the file. ``left_out``
    says how many rows were left out, by the reason, ``unfinished`` names the runs that their
    status left out, and ``unreadable`` says of columns that nothing needs what became gaps.
    """

    path: str
    format: str
    mapping: dict[str, Expression]
    texts: dict[str, list[str]]
    numbers: dict[str, Floats]
    others: dict[str, list[Any]]
    left_out: dict[str, int]
    unfinished: dict[str, list[str]]
    unreadable: dict[str, str]

    def __len__(self) -> int:
        return len(self.texts["name"])

    def select(self, rows: NDArray[np.bool_]) -> "Table":
        """The rows where ``rows`` is true."""
        kept = np.flatnonzero(rows)
        return replace(
            self,
            texts={name: [column[i] for i in kept] for name, column in self.texts.items()},
            numbers={name: column[kept] for name, column in self.numbers.items()},
            others={name: [column[i] for i in kept] for name, column in self.others.items()},
        )

    def groups(self, by: str) -> dict[str, "Table"]:
        """The rows of each method, or of each value of another column; ``all`` without it.

        Rows that have none, where others have one, are a group of their own.

        Raises:
            UserError: ``by`` is neither ``method`` nor a column of the table.
        """
        numbers = {
            name: ["" if math.isnan(v) else f"{v:.15g}" for v in column]
            for name, column in self.numbers.items()
        }
        columns: dict[str, list[Any]] = {**numbers, **self.texts, **self.others}
        if by not in columns:
            if by == "method":
                return {"all": self}
            raise UserError(f"by={by}: {lacks(self.path, by, columns)}")
        values = ["" if value is None else str(value) for value in columns[by]]
        column = [value or _GAP_GROUP for value in values] if any(values) else ["all"] * len(self)
        return {
            value: self.select(np.array([other == value for other in column]))
            for value in dict.fromkeys(column)
        }


def read_table(
    path: str,
    format_name: str,
    columns: dict[str, str],
    where: dict[str, str],
    needed: Collection[str] = NEEDED,
    by: str = "method",
) -> Table:
    """Reads CSV (also .gz) or Parquet; several files, separated by commas, are one table.

    Args:
        path: the file or files.
        format_name: see ``map_columns``.
        columns: Canopy's name -> expression, where the format does not fit.
        where: column -> value that its rows must have; ``=OTHER`` means what stands in OTHER.
        needed: columns of numbers that must be in range, if the table has them; of the others what
            is not is a gap, and counted.
        by: the column whose values are fitted apart.

    Raises:
        UserError: a file cannot be read, a column is missing, a number is none or out of range,
            a row stands there twice, rows of several tests or epochs are mixed, or nothing is left.
    """
    numbered = [
        (f"{file}, row {i + 1}", row)
        for file in path.split(",")
        for i, row in enumerate(_read_rows(Path(file)))
    ]
    rows = [row for _, row in numbered]
    header = list(dict.fromkeys(name for row in rows for name in row))
    format_name, mapping = map_columns(header, format_name, columns, path)
    numbered = [(place, row) for place, row in numbered if _matches(row, where, header, path)]
    if not numbered:
        told = ", ".join(f"{column} has {_values(rows, column)}" for column in where)
        raise UserError(f"{path}: none of its {len(rows)} rows is as where={where} says; {told}")
    left_out = Counter({"another where": len(rows) - len(numbered)})
    check_choices(path, [row for _, row in numbered], header, {*where, by})
    finished = []
    unfinished: dict[str, list[str]] = {}
    for place, row in numbered:
        status = _text(row, mapping, "status")
        if not status or status.lower() in _FINISHED:
            finished.append((f"{place} ({_text(row, mapping, 'name')})", row))
        else:
            left_out[f"status={status}"] += 1
            unfinished.setdefault(status, []).append(_text(row, mapping, "name") or place)
    if not finished:
        told = ", ".join(f"{len(names)} {status}" for status, names in unfinished.items())
        raise UserError(
            f"{path}: no row has finished, by its status: {told}; one that has is "
            f"{', '.join(_FINISHED)}, or has no status"
        )
    texts = _texts(mapping, finished)
    numbers, unreadable = _numbers(mapping, finished, needed)
    check_distinct(finished, texts, numbers, header, by)
    used = {expression.column for expression in mapping.values()}
    others = {name: [row.get(name) for _, row in finished] for name in header if name not in used}
    return Table(
        path, format_name, mapping, texts, numbers, others, dict(+left_out), unfinished, unreadable
    )


def _read_rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise UserError(f"no such table: {path}")
    try:
        if path.suffix == ".parquet":
            table = pyarrow.parquet.read_table(path)
        else:
            # All as text: a seed of 007 stays so, an empty field is a gap, and nan is a number that
            # must be looked at.
            names = _read_header(path)
            options = pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
            )
            table = pyarrow.csv.read_csv(path, convert_options=options)
    # Arrow raises OSError of its own for what is cut off.
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no table: {str(error).splitlines()[0]}") from None
    table = table.rename_columns([name.strip() for name in table.column_names])
    repeated = [name for name, count in Counter(table.column_names).items() if count > 1]
    if repeated:
        raise UserError(f"{path} has two columns {repeated[0]!r}")
    if not table.num_rows:
        raise UserError(f"{path} has no rows")
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _read_header(path: Path) -> list[str]:
    """Raises: UserError: the fields are separated by something else than commas."""
    # What is wrong with a row is told when the table is read.
    lenient = pyarrow.csv.ParseOptions(invalid_row_handler=lambda row: "skip")
    names: list[str] = pyarrow.csv.open_csv(path, parse_options=lenient).schema.names
    for separator, called in ((";", "semicolons"), ("\t", "tabs")):
        if len(names) == 1 and separator in names[0]:
            raise UserError(f"{path}: fields must be separated by commas, not by {called}")
    return names


def _matches(row: dict[str, Any], where: dict[str, str], header: list[str], path: str) -> bool:
    for column, wanted in where.items():
        wanted = str(wanted)
        for name in (column, wanted[1:]) if wanted.startswith("=") else (column,):
            if name not in header:
                raise UserError(f"where.{column}={wanted}: {lacks(path, name, header)}")
        other = row.get(wanted[1:]) if wanted.startswith("=") else wanted
        if not same(row.get(column), other):
            return False
    return True


def _values(rows: list[dict[str, Any]], column: str) -> str:
    values = list(dict.fromkeys(str(row.get(column)) for row in rows))
    return ", ".join(values[:8]) + (", ..." if len(values) > 8 else "")


def _texts(
    mapping: dict[str, Expression], rows: list[tuple[str, dict[str, Any]]]
) -> dict[str, list[str]]:
    names = [name for name in TEXTS if name in mapping or name == "name"]
    return {name: [_text(row, mapping, name) for _, row in rows] for name in names}


def _numbers(
    mapping: dict[str, Expression], rows: list[tuple[str, dict[str, Any]]], needed: Collection[str]
) -> tuple[dict[str, Floats], dict[str, str]]:
    """Each column, and what was no number in those that nothing needs."""
    needed = {*needed}
    if "params" in needed and "params" not in mapping:
        needed |= {"params_image", "params_text"}
    if "flops" not in mapping:
        needed |= {"flops_per_sample", "samples"}
    numbers: dict[str, Floats] = {}
    unreadable: dict[str, str] = {}
    for name, expression in mapping.items():
        if name not in NUMBERS:
            continue
        column = np.full(len(rows), math.nan)
        faults = []
        for i, (place, row) in enumerate(rows):
            try:
                column[i] = _number(row, expression, name)
            except UserError as error:
                if name in needed or name == "flops":
                    source = (
                        ""
                        if expression.column == name
                        else f" (from {expression.column}={row[expression.column]})"
                    )
                    raise UserError(f"{place}{source}: {error}") from None
                faults.append(str(row[expression.column]))
        numbers[name] = column
        if faults:
            unreadable[expression.column] = (
                f"{len(faults)} of {len(rows)} fields are no such figure, as {faults[0]!r}: left "
                "empty, as no law needs them"
            )
    if "params" not in numbers and {"params_image", "params_text"} <= numbers.keys():
        numbers["params"] = numbers["params_image"] + numbers["params_text"]
    if "flops" not in numbers:
        numbers["flops"] = numbers["flops_per_sample"] * numbers["samples"]
    for (place, _), flops in zip(rows, numbers["flops"], strict=True):
        if math.isnan(flops):
            raise UserError(f"{place}: flops are missing; every point needs its compute")
    return numbers, unreadable


def _text(row: dict[str, Any], mapping: dict[str, Expression], name: str) -> str:
    value = row.get(mapping[name].column) if name in mapping else None
    return "" if value is None else str(value)


def _number(row: dict[str, Any], expression: Expression, name: str) -> float:
    """NaN for a gap. Raises: UserError: the field is no number, or out of range."""
    field = row.get(expression.column)
    if field is None or str(field).strip().lower() in _GAPS:
        return math.nan
    try:
        value = expression.of(float(field))
    except (TypeError, ValueError):
        raise UserError(f"{expression.column} is {field!r}, not a number") from None
    if name in TARGETS:
        _check_target(name, value, expression)
    elif name in _POSITIVE and not 0 < value < math.inf:
        raise UserError(f"{name} is {value:g}; it must be above 0: check its unit")
    elif math.isinf(value):
        raise UserError(f"{name} is {value:g}")
    return value


def _check_target(name: str, value: float, expression: Expression) -> None:
    """An error of 0 is a figure, though not one that a law is fitted to."""
    if not math.isfinite(value):
        raise UserError(
            f"{name} is {value}; mark a run that diverged status=diverged, or leave the field empty"
        )
    if value < 0 or (value == 0 and name == "loss"):
        raise UserError(
            f"{name} is {value:g}; it must be above 0: the law is fitted to its logarithm"
        )
    if name == "error" and value > 1:
        raise UserError(
            f"error is {value:g}; it is a share of at most 1: for per cent give "
            f"columns.error='{expression.column} * 0.01', for accuracies '1 - NAME * 0.01'"
        )
