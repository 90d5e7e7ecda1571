"""The model card: what a run was made of and what it reached. What is not known is said to be."""

from pathlib import Path
from typing import Any

import jinja2

from pretrain.config import PretrainConfig
from pretrain.data.transforms import IMAGE_MEAN, IMAGE_STD
from pretrain.evaluate.benchmarks.table import headline, is_whole
from pretrain.release.evaluation import Figures
from pretrain.release.facts import Facts

_TEMPLATE = Path(__file__).with_name("card.md.jinja")
_UNKNOWN = "unknown"


def write_card(facts: Facts, config: PretrainConfig, figures: Figures) -> str:
    """The card as Markdown.

    Args:
        facts: what is known of the release.
        config: of the run.
        figures: what was measured with these very weights.
    """
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["percent"] = lambda share: f"{100 * share:.1f} %"
    environment.filters["count"] = lambda number: _UNKNOWN if number is None else f"{number:,}"
    environment.filters["known"] = lambda value: _UNKNOWN if value in (None, "") else value
    environment.filters["headline"] = _headline
    environment.filters["is_whole"] = is_whole
    environment.keep_trailing_newline = True
    return environment.from_string(_TEMPLATE.read_text()).render(
        facts=facts,
        config=config,
        evaluation=figures.evaluation,
        evaluation_note=figures.evaluation_note,
        benchmarks=figures.benchmarks,
        benchmarks_note=figures.benchmarks_note,
        mean=IMAGE_MEAN,
        std=IMAGE_STD,
    )


def _headline(result: dict[str, Any]) -> str:
    """The few figures of a benchmark that are most asked for, in one cell."""
    cells = headline(result).items()
    return ", ".join(f"{n} {x:,}" if isinstance(x, int) else f"{n} {x:.3f}" for n, x in cells)
