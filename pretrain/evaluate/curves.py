"""Curves of a run from its `metrics.jsonl`, as SVG."""

import base64
import io
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pretrain.metrics import read_metrics, read_validations

Curve = tuple[list[float], list[float]]  # steps, values

#: Panels of the report by the names of their metrics; what is in none of them is a loss term.
_PANELS = {
    "Validation: recall": r"^validation_(t2i|i2t)_r\d+$",
    "Validation: loss": r"^validation_(retrieval_)?loss$",
    "Learning rate": r"^learning_rate$",
    "Logit scales and biases": r"scale|bias|temperature",
    "Gradient norm": r"^grad_norm$",
    "Images a second": r"^samples_per_second$",
    "Tokens a second": r"^tokens_per_second$",
    "Shares of the ranks' time": r"^(data_wait|compute|communication|save|validation)_share$",
    "Share of cut texts and bad samples": r"^(cut_text|bad_sample)_share$",
    "Model FLOPs, share of the peak": r"^mfu$",
    "Skipped steps": r"^num_skipped_steps$",
}
#: What follows a law, moves slowly or is measured on the same samples each time: no noise.
_EXACT = {"Learning rate", "Logit scales and biases", "Validation: recall", "Validation: loss"}
_NOT_SHOWN = {
    *("step", "seconds", "left_seconds", "num_samples_seen", "num_ranks"),
    "validation_num_images",
}
COLOURS = ("#1f6f43", "#c0622d", "#2f5d9b", "#8a4f9e", "#9a8a1f", "#3c8d93", "#b23a5b")


def draw_curves(metrics: Path) -> list[tuple[str, str]]:
    """(title, data URI of an SVG) of each panel; none if there are no metrics."""
    rows, validations = read_metrics(metrics), _flat(read_validations(metrics))
    last = (rows[-1] if rows else {}) | (validations[-1] if validations else {})
    names = [name for name in last if name not in _NOT_SHOWN]
    rows += validations
    shown: dict[str, list[str]] = {title: [] for title in ("Loss", *_PANELS)}
    for name in names:
        titles = (title for title, pattern in _PANELS.items() if re.search(pattern, name))
        shown[next(titles, "Loss")].append(name)
    return [
        (title, _draw({name: _curve(rows, name) for name in chosen}, title not in _EXACT))
        for title, chosen in shown.items()
        if chosen
    ]


def _flat(validations: list[dict]) -> list[dict]:
    return [
        {"step": row["step"], **{f"validation_{n}": v for n, v in row["validation"].items()}}
        for row in validations
    ]


def _curve(rows: list[dict], name: str) -> Curve:
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    return [step for step, _ in points], [value for _, value in points]


def _draw(curves: Mapping[str, Curve], is_noisy: bool) -> str:
    axes = new_axes()
    for index, (name, (steps, values)) in enumerate(curves.items()):
        colour = COLOURS[index % len(COLOURS)]
        smooth = is_noisy and len(values) > 60
        axes.plot(steps, values, color=colour, alpha=0.25 if smooth else 1, linewidth=1.4)
        if smooth:
            axes.plot(steps, _smooth(values), color=colour, linewidth=1.6)
        axes.plot([], [], color=colour, linewidth=2, label=name.replace("_", " "))
    axes.set_xlabel("step")
    if len(curves) > 1:
        axes.legend(frameon=False, fontsize=8)
    return as_data_uri(axes)


def new_axes(width: float = 4.4, height: float = 2.7) -> Axes:
    """Axes of a figure of so many inches, in the look of all reports."""
    with _style():
        axes = Figure(figsize=(width, height), layout="constrained").add_subplot()
    axes.grid(color="#e4e2da", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#8b897f")
    axes.tick_params(colors="#55534b", which="both")
    return axes


def as_data_uri(axes: Axes) -> str:
    """The figure as SVG in a data URI."""
    buffer = io.BytesIO()
    with _style():
        figure = axes.get_figure(root=True)
        assert figure is not None
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _style() -> AbstractContextManager[None]:
    # Words stay paths, so that the figure looks the same wherever it is opened.
    return matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "canopy", "font.size": 9})


def _smooth(values: list[float]) -> list[float]:
    """Exponential mean over about a fiftieth of the run, corrected for its start."""
    keep = 1 - 50 / max(len(values), 100)
    smoothed, total, weight = [], 0.0, 0.0
    for value in values:
        total, weight = keep * total + (1 - keep) * value, keep * weight + (1 - keep)
        smoothed.append(total / weight)
    return smoothed
