"""Plots of a scaling experiment, as SVG in data URIs."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatterSciNotation, NullFormatter, ScalarFormatter

from pretrain.evaluate.curves import COLOURS, as_data_uri, new_axes

_SIZE = (6.4, 4.2)  # inches
_MARGIN = 1.08
_MARKERS = ("o", "s", "^", "D")  # each with all colours
_TOLD = {
    "compute": "Lines: L(C)",
    "best": "Lines: L(N, D) at the best N and D of each compute, where that N was trained",
    "size": "Lines: L(N, D) of the sizes trained, from the fewest to the most samples",
    "": "No line: no law was fitted",
}


def draw_compute(groups: list[dict[str, Any]], label: str) -> str:
    """Loss or error over training FLOPs, on logarithmic axes: points (full: on the front; stars:
    held out), each method's fitted law with the band of its interval.

    Args:
        groups: of `fit.json`, those of one target.
        label: says what that is.
    """
    axes = new_axes(*_SIZE)
    named: dict[str, Artist] = {}
    shown: list[float] = []
    for index, group in enumerate(groups):
        colour, marker = _style(index)
        kinds = defaultdict(list)
        for point in group["points"]:
            kinds[_kind(point)].append((point["flops"], point["value"]))
            shown.append(point["value"])
        _scatter(axes, kinds["other"], colour, marker=marker, facecolors="none", alpha=0.6)
        for each in _scatter(axes, kinds["front"], colour, marker=marker):
            named[group["group"]] = each
        for each in _scatter(axes, kinds["held out"], colour, marker="*", s=110):
            named[f"{group['group']}, held out"] = each
        for band in drawn_bands(group):
            axes.plot(band["flops"], band["value"], color=colour, linewidth=1.5)
            axes.fill_between(
                band["flops"], band["low"], band["high"], color=colour, alpha=0.15, linewidth=0
            )
            shown += band["value"]
    if shown:  # the ends of a wide band may be far outside
        axes.set_ylim(min(shown) / _MARGIN, max(shown) * _MARGIN)
    return _finish(axes, "training FLOPs", label, named)


def drawn_bands(group: dict[str, Any]) -> list[dict[str, Any]]:
    """Those of L(C); where there is no L(C), of L(N, D)."""
    return next((law["bands"] for law in group["laws"] if law["bands"]), [])


def tell_bands(groups: list[dict[str, Any]]) -> str:
    """What the lines are that `draw_compute` draws."""
    named: dict[str, list[str]] = defaultdict(list)
    for group in groups:
        for at in {band["at"] for band in drawn_bands(group)} or {""}:
            named[at].append(group["group"])
    return " ".join(f"{_TOLD[at]} ({', '.join(names)})." for at, names in named.items())


def draw_samples(points: Iterable[dict[str, Any]], label: str) -> str:
    """Loss or error over samples seen, a line for each run: a model on one set with one seed."""
    axes = new_axes(*_SIZE)
    named: dict[str, Artist] = {}
    for index, (name, line) in enumerate(_lines(points).items()):
        samples, values = zip(*sorted(line), strict=True)
        style = ("-", "--", ":", "-.")[index // len(COLOURS) % 4]
        colour = COLOURS[index % len(COLOURS)]
        (named[name],) = axes.plot(samples, values, style, color=colour, marker="o", markersize=4)
    return _finish(axes, "samples seen", label, named)


def _lines(points: Iterable[dict[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """By the name of the model; where it has several runs of several lengths, by theirs."""
    by_model: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for point in points:
        if point["samples"] is not None:
            runs = by_model[point["model"] or "all"]
            runs[point["run"]].append((point["samples"], point["value"]))
    lines: dict[str, list[tuple[float, float]]] = {}
    for model, runs in by_model.items():
        if len(runs) > 1 and any(len(line) > 1 for line in runs.values()):
            lines |= runs
        else:  # runs of one point each make no line
            lines[model] = [place for line in runs.values() for place in line]
    return lines


def draw_ratio(comparison: dict[str, Any], label: str) -> str:
    """One method's loss or error over the other's at equal compute, with its interval."""
    axes = new_axes(*_SIZE)
    ratio = comparison["ratio"]
    low, high = ([each[end] for each in ratio] for end in ("low", "high"))
    axes.axhline(1, color="#8b897f", linewidth=1)
    axes.plot(comparison["flops"], [each["value"] for each in ratio], color=COLOURS[2])
    axes.fill_between(comparison["flops"], low, high, color=COLOURS[2], alpha=0.15, linewidth=0)
    axes.set_xscale("log")
    axes.set_xlabel("training FLOPs")
    axes.set_ylabel(_plain(f"{label}: {comparison['first']} / {comparison['second']}"))
    return as_data_uri(axes)


def _style(index: int) -> tuple[str, str]:
    """Colour and marker, which no two groups of the first 28 have in common."""
    return COLOURS[index % len(COLOURS)], _MARKERS[index // len(COLOURS) % len(_MARKERS)]


def _kind(point: dict[str, Any]) -> str:
    if point["held_out"]:
        return "held out"
    return "front" if point["on_front"] else "other"


def _scatter(
    axes: Axes, points: list[tuple[float, float]], colour: str, **options: Any
) -> list[Artist]:
    """What is drawn: one, or none without points."""
    if not points:
        return []
    flops, values = zip(*points, strict=True)
    chosen = {"s": 26, "color": colour, "linewidths": 1.2, "zorder": 3, **options}
    return [axes.scatter(flops, values, **chosen)]


def _finish(axes: Axes, x: str, y: str, named: dict[str, Artist]) -> str:
    """As a data URI; ``named`` says what the legend shows."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    if high < 10 * low:  # within a decade powers of ten tell nothing
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.yaxis.set_minor_formatter(ScalarFormatter())
    else:
        axes.yaxis.set_major_formatter(LogFormatterSciNotation())
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(x)
    axes.set_ylabel(_plain(y))
    if named:
        # As texts of their own: a label that begins with _ would be left out.
        legend = axes.legend(
            list(named.values()), list("." * len(named)), frameon=False, fontsize=8
        )
        for text, name in zip(legend.texts, named, strict=True):
            text.set_text(_plain(name))
    return as_data_uri(axes)


def _plain(text: str) -> str:
    """With no dollar that would begin a formula, and on one line."""
    return " ".join(text.replace("$", r"\$").split())
