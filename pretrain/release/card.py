"""The model card: what a run was made of and what it reached. What is not known is said to be."""

from pathlib import Path
from typing import Any

import jinja2

from pretrain.config import PretrainConfig
from pretrain.data.transforms import IMAGE_MEAN, IMAGE_STD
from pretrain.release.facts import Facts

_TEMPLATE = Path(__file__).with_name("card.md.jinja")
_UNKNOWN = "unknown"


def write_card(
    facts: Facts, config: PretrainConfig, evaluation: dict[str, Any] | None, evaluation_note: str
) -> str:
    """The card as Markdown.

    Args:
        facts: what is known of the release.
        config: of the run.
        evaluation: `evaluation.json` of these very weights, if there is one.
        evaluation_note: why there is none.
    """
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["percent"] = lambda share: f"{100 * share:.1f} %"
    environment.filters["count"] = lambda number: _UNKNOWN if number is None else f"{number:,}"
    environment.filters["known"] = lambda value: _UNKNOWN if value in (None, "") else value
    environment.keep_trailing_newline = True
    return environment.from_string(_TEMPLATE.read_text()).render(
        facts=facts,
        config=config,
        evaluation=evaluation,
        evaluation_note=evaluation_note,
        mean=IMAGE_MEAN,
        std=IMAGE_STD,
    )
