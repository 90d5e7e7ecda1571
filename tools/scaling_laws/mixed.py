"""Rows of one run that must not be fitted together: the same point twice, or several epochs."""

from collections.abc import Collection
from typing import Any

from recaption.common.errors import UserError
from tools.scaling_laws.columns import CHOICES
from tools.scaling_laws.laws import Floats

#: What two rows of one run have in common.
_SAME_TEXTS = ("name", "run", "model", "method", "data", "seed")
_SAME_NUMBERS = ("params", "samples", "flops")


def check_choices(
    path: str, rows: list[dict[str, Any]], header: list[str], chosen: Collection[str]
) -> None:
    """Raises: UserError: a column in which rows of one run differ has several values.

    Args:
        path: names the table.
        rows: those that `where` leaves.
        header: names of the columns.
        chosen: columns that need no choice, as somebody made it.
    """
    for column, advice in CHOICES.items():
        values = sorted({str(row.get(column)) for row in rows}) if column in header else []
        if len(values) > 1 and column not in chosen:
            shown = ", ".join(values[:4]) + (", ..." if len(values) > 4 else "")
            raise UserError(
                f"{path} has {len(values)} values of {column} ({shown}), and rows of one run that "
                f"differ in it must not be mixed: choose one, as in where.{column}={values[0]}"
                + advice
            )


def check_distinct(
    rows: list[tuple[str, dict[str, Any]]],
    texts: dict[str, list[str]],
    numbers: dict[str, Floats],
    header: list[str],
    by: str,
) -> None:
    """Raises: UserError: two rows are one point; it would count twice and narrow the intervals.

    Args:
        rows: where each stands, and its fields.
        texts, numbers: the same by Canopy's names.
        header: names of the columns.
        by: the column whose values are fitted apart.
    """
    names = [name for name in _SAME_TEXTS if name in texts]
    figures = [name for name in _SAME_NUMBERS if name in numbers]
    runs = texts.get("run", [""] * len(rows))
    first: dict[tuple[str, ...], int] = {}
    repeated: list[tuple[int, int]] = []
    for i, (_, row) in enumerate(rows):
        columns = [by] if texts["name"][i] or runs[i] else header  # all, where nothing names it
        key = (
            *(texts[name][i] for name in names),
            *(str(numbers[name][i]) for name in {*figures, by} & numbers.keys()),
            *(str(row.get(name)) for name in columns),
        )
        if key in first:
            repeated.append((first[key], i))
        first.setdefault(key, i)
    if not repeated:
        return
    (one, row), (other, other_row) = (rows[i] for i in repeated[0])
    differ = [name for name in header if not same(row.get(name), other_row.get(name))]
    advice = (
        f"they differ in {', '.join(differ[:6])}: choose rows with `where`, or give each run a "
        "name or a seed of its own"
        if differ
        else "leave one of them out"
    )
    more = f", as are {len(repeated) - 1} pairs more" if len(repeated) > 1 else ""
    raise UserError(
        f"{one} and {other} are one point (equal in {', '.join(names + figures)}){more}; {advice}"
    )


def same(left: Any, right: Any) -> bool:
    """Whether two fields are the same text or the same number."""
    if str(left) == str(right):
        return True
    try:
        return float(left) == float(right)
    except (TypeError, ValueError):
        return False
