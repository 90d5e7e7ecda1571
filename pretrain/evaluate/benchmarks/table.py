"""Results as lines for a terminal, and as the cells of the page's tables."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_WAYS = {"text_to_image": "T2I", "image_to_text": "I2T"}
_RECALLS = {"r1": "R@1", "r5": "R@5", "r10": "R@10"}


@dataclass(frozen=True)
class Line:
    """One row of a table: ours, chance, or somebody's."""

    name: str
    kind: str  # ours, chance or published
    cells: dict[str, str]


def lines_of(result: Mapping[str, Any], model: str) -> list[Line]:
    """Our scores, chance, and published figures, with the same columns.

    Beside a part of a benchmark stands nothing published: fewer candidates are an easier task.
    """
    figures = result["figures"]
    ours: list[Line] = []
    if "columns" in figures:
        for name, both in figures["columns"].items():
            label = model if name == "score" else f"{model}, {name}"
            ours.append(Line(label, "ours", _recalls(both, with_intervals=True)))
        ours.append(Line("chance", "chance", _recalls(figures["chance"], with_intervals=False)))
    else:
        flat = dict(flat_numbers({k: v for k, v in figures.items() if k != "chance"}))
        ours.append(Line(model, "ours", {name: _number(value) for name, value in flat.items()}))
        if isinstance(figures.get("chance"), Mapping):
            by_chance = dict(flat_numbers(figures["chance"]))
            cells = {name: _number(value) for name, value in by_chance.items()}
            ours.append(Line("chance", "chance", cells))
    if result["coverage"]["share"] < 1:
        return ours
    others = [
        Line(name, "published", {figure: f"{value:.1f}" for figure, value in values.items()})
        for name, values in result["published"].items()
    ]
    return ours + others


def headline(result: Mapping[str, Any]) -> dict[str, float]:
    """The few figures of a benchmark that are most asked for, by name."""
    figures = result["figures"]
    if "columns" not in figures:
        return dict(flat_numbers(figures))
    first = next(iter(figures["columns"].values()))
    return {
        "t2i_r1": first["text_to_image"]["r1"],
        "i2t_r1": first["image_to_text"]["r1"],
        "share_cut": figures["share_cut"],
    }


def flat_numbers(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """`{"a": {"b": 1}}` -> ("a b", 1); what is no number is left out."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat_numbers(value, f"{prefix}{name} ")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{name}", value


def format_results(results: Mapping[str, Any]) -> str:
    """All benchmarks, one table each."""
    model = results["model"]["name"]
    return "\n\n".join(
        "\n".join([*title_lines(result), *_table(lines_of(result, model))])
        for result in results["benchmarks"].values()
    )


def title_lines(result: Mapping[str, Any]) -> list[str]:
    """What was measured, on how much of it."""
    name = f"{result['title']} {result['variant']}".strip()
    figures, coverage = result["figures"], result["coverage"]
    told = [
        f"{coverage['share']:.2%} of it, not to be compared with all of it"
        if coverage["share"] < 1
        else "all of it"
    ]
    if "columns" in figures:
        told.append(f"{figures['num_images']:,} images, {figures['num_texts']:,} texts")
        told.append(f"{figures['share_cut']:.1%} of the texts cut")
    told += [f"{number:,} {what}" for what, number in coverage["notes"].items()]
    return [f"{name}: {'; '.join(told)}"]


def _table(lines: list[Line]) -> list[str]:
    names = list(dict.fromkeys(name for line in lines for name in line.cells))
    if lines and len(names) > 12:  # too wide for a terminal: one figure a line
        return [
            f"  {name:<48} "
            + "  ".join(f"{x.cells[name]} ({x.name})" for x in lines if name in x.cells)
            for name in names
        ]
    first = max(len(line.name) for line in lines)
    widths = {n: max(len(n), *(len(line.cells.get(n, "")) for line in lines)) for n in names}
    head = "  ".join([" " * first, *(f"{name:>{widths[name]}}" for name in names)])
    return [head] + [
        "  ".join(
            [f"{line.name:<{first}}", *(f"{line.cells.get(n, '-'):>{widths[n]}}" for n in names)]
        )
        for line in lines
    ]


def _recalls(both: Mapping[str, Any], with_intervals: bool) -> dict[str, str]:
    cells = {}
    for way, short in _WAYS.items():
        for key, name in _RECALLS.items():
            cell = f"{100 * both[way][key]:.1f}"
            if with_intervals and key == "r1":
                low, high = both[way]["r1_interval"]
                cell += f" ({100 * low:.1f}-{100 * high:.1f})"
            cells[f"{short} {name}"] = cell
    return cells


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
