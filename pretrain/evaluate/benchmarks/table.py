"""Results as lines for a terminal, and as the cells of the page's tables."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

#: The row of what a random order reaches.
CHANCE = "chance"

_WAYS = {"text_to_image": "T2I", "image_to_text": "I2T"}
_NUM_CLASSES = 5  # of the best, and of the worst, told in a terminal
_RECALLS = {"r1": "R@1", "r5": "R@5", "r10": "R@10"}


#: (model, result) of others, of one benchmark.
Others = Sequence[tuple[str, Mapping[str, Any]]]


@dataclass(frozen=True)
class Line:
    """One row of a table: ours, another model's, chance, or somebody's published one."""

    name: str
    kind: str  # ours, compared, chance or published
    cells: dict[str, str]


def lines_of(result: Mapping[str, Any], model: str, others: Others = ()) -> list[Line]:
    """Our scores, those of other models, chance, and published figures, with the same columns.

    Beside a part of a benchmark stands nothing published: fewer candidates are an easier task.
    Recalls are told in per cent, as papers do; other figures as shares.

    Args:
        others: (model, result) of the same benchmark and files, as ours.
    """
    lines = _lines_of_model(result["figures"], model, "ours")
    for other, theirs in others:
        lines += _lines_of_model(theirs["figures"], other, "compared")
    lines += _chance(result["figures"])
    if not is_whole(result["coverage"]):
        return lines
    in_per_cent = "columns" in result["figures"]
    for name, values in result["published"].items():
        cells = {n: f"{v:.1f}" if in_per_cent else _number(v / 100) for n, v in values.items()}
        lines.append(Line(name, "published", cells))
    return lines


def _lines_of_model(figures: Mapping[str, Any], model: str, kind: str) -> list[Line]:
    if "columns" in figures:
        return [
            Line(
                model if name == "score" else f"{model}, {name}",
                kind,
                _recalls(both, with_intervals=True),
            )
            for name, both in figures["columns"].items()
        ]
    flat = dict(flat_numbers({k: v for k, v in figures.items() if k != "chance"}))
    cells = {name: _number(value) for name, value in flat.items()}
    for name, value in figures.items():
        if name.endswith("_interval"):
            low, high = value
            cells[name.removesuffix("_interval")] += f" ({_number(low)}-{_number(high)})"
    return [Line(model, kind, cells)]


def _chance(figures: Mapping[str, Any]) -> list[Line]:
    chance = figures.get("chance")
    if not isinstance(chance, Mapping):
        return []
    if "columns" in figures:
        return [Line(CHANCE, "chance", _recalls(chance, with_intervals=False))]
    return [Line(CHANCE, "chance", {n: _number(v) for n, v in flat_numbers(chance)})]


def main_lines(result: Mapping[str, Any], model: str, others: Others = ()) -> list[Line]:
    """The one line of each model by which it is judged, and chance, with the main figures alone:
    the first two of those that have an interval.
    """
    figures = result["figures"]
    if "columns" in figures:
        names = [f"{way} R@1" for way in _WAYS.values()]
    else:
        names = [n.removesuffix("_interval") for n in figures if n.endswith("_interval")][:2]
    models = [(model, figures, "ours"), *((n, r["figures"], "compared") for n, r in others)]
    lines = [replace(_lines_of_model(f, name, kind)[0], name=name) for name, f, kind in models]
    return [
        replace(line, cells={n: line.cells[n] for n in names if n in line.cells})
        for line in [*lines, *_chance(figures)]
    ]


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


def format_results(results: Mapping[str, Any], others: Mapping[str, Others]) -> str:
    """All benchmarks, one table each; `others` by benchmark."""
    model = results["model"]["name"]
    tables = [
        _lines(result, model, others.get(name, ()))
        for name, result in results["benchmarks"].items()
    ]
    left_out = [f"{name}: left out, as {why}" for name, why in results["left_out"].items()]
    intervals = dict.fromkeys(
        f"in parentheses: {result['figures']['intervals']}"
        for result in results["benchmarks"].values()
        if "intervals" in result["figures"]
    )
    parts = [*tables, left_out, list(intervals)]
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def _lines(result: Mapping[str, Any], model: str, others: Others) -> list[str]:
    lines = lines_of(result, model, others)
    caveat = [f"published figures: {result['caveat']}"] if result["caveat"] else []
    is_published = any(line.kind == "published" for line in lines)
    return [
        *title_lines(result),
        *_table(lines),
        *_extreme_classes(result["figures"]),
        *(caveat if is_published else []),
    ]


def _extreme_classes(figures: Mapping[str, Any]) -> list[str]:
    """Of many classes those that are told apart best and worst; the page has all."""
    if "iou_by_class" not in figures:
        return []
    by_iou = sorted(figures["iou_by_class"], key=lambda pair: -pair[1])
    num_shown = min(_NUM_CLASSES, len(by_iou) // 2)
    told = {"best": by_iou[:num_shown], "worst": by_iou[len(by_iou) - num_shown :]}
    return [
        f"  iou_by_class, {which}: " + ", ".join(f"{name} {_number(iou)}" for name, iou in pairs)
        for which, pairs in told.items()
        if pairs
    ]


def title_lines(result: Mapping[str, Any]) -> list[str]:
    """What was measured, on how much of it."""
    name = f"{result['title']} {result['variant']}".strip()
    figures, coverage = result["figures"], result["coverage"]
    told = ["all of it"]
    if not is_whole(coverage):
        told = [f"{share_told(coverage)} of it, not to be compared with all of it"]
        if coverage.get("num_texts", 0) > coverage.get("num_texts_expected", 0):
            told.append(f"more texts than the protocol's {coverage['num_texts_expected']:,}")
    if coverage["num_missing"]:
        told.append(f"{coverage['num_missing']:,} missing")
    if "columns" in figures:
        told.append(f"{figures['num_images']:,} images, {figures['num_texts']:,} texts")
        told.append(f"{figures['share_cut']:.1%} of the texts cut")
    told += [f"{number:,} {what}" for what, number in coverage["notes"].items()]
    return [f"{name}: {'; '.join(told)}"]


def is_whole(coverage: Mapping[str, Any]) -> bool:
    """Whether the candidates are those of the protocol: no text or picture less, none more."""
    return (
        coverage["num_samples"] == coverage["num_expected"]
        and coverage.get("num_texts") == coverage.get("num_texts_expected")
        and not coverage["num_missing"]
    )


def share_told(coverage: Mapping[str, Any]) -> str:
    """How much of a benchmark is there: 12.34%, or that nobody knows."""
    share = coverage["share"]
    return "an unknown share" if share is None else f"{share:.2%}"


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
        cells[f"{short} median"] = f"{both[way]['median_rank']:.1f}"
    return cells


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
