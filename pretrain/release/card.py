"""The model card: what a run was made of and what it reached. What is not known is said to be."""

import json
import math
from pathlib import Path
from typing import Any

import jinja2
import yaml

from pretrain.config import PretrainConfig
from pretrain.data.transforms import IMAGE_MEAN, IMAGE_STD
from pretrain.evaluate.benchmarks.results import RESULTS
from pretrain.evaluate.benchmarks.table import headline, is_whole
from pretrain.evaluate.command import RESULT
from pretrain.release.evaluation import Figures
from pretrain.release.facts import Facts
from recaption.common.config import UserError

_TEMPLATE = Path(__file__).with_name("card.md.jinja")
_UNKNOWN = "unknown"


def write_card(facts: Facts, config: PretrainConfig, figures: Figures) -> str:
    """The card as Markdown.

    Args:
        facts: what is known of the release.
        config: of the run.
        figures: what was measured with these very weights.

    Raises:
        UserError: the figures lack one that is part of the card.
    """
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["percent"] = lambda share: _number(share, 100 * share, ".1f", " %")
    environment.filters["decimals"] = lambda number, form: _number(number, number, form)
    environment.filters["cell"] = _cell
    environment.filters["json"] = json.dumps
    environment.filters["count"] = lambda number: _UNKNOWN if number is None else f"{number:,}"
    environment.filters["known"] = lambda value: _UNKNOWN if value in (None, "") else value
    environment.filters["code"] = _code
    environment.filters["headline"] = _headline
    environment.filters["is_whole"] = is_whole
    environment.keep_trailing_newline = True
    is_trained = facts.training.step is not None  # not imported
    try:
        return environment.from_string(_TEMPLATE.read_text()).render(
            front_matter=_front_matter(facts, is_trained),
            is_trained=is_trained,
            facts=facts,
            config=config,
            evaluation=figures.evaluation,
            evaluation_note=figures.evaluation_note,
            benchmarks=figures.benchmarks,
            benchmarks_note=figures.benchmarks_note,
            mean=IMAGE_MEAN,
            std=IMAGE_STD,
        )
    except jinja2.UndefinedError as error:
        raise UserError(
            f"the card cannot be made of {RESULT} and {RESULTS} ({error}): evaluate again"
        ) from None


def _front_matter(facts: Facts, is_trained: bool) -> str:
    """What a model hub reads of a card, as YAML."""
    about = ["long-captions"] if is_trained else []
    tree = {
        "library_name": "canopy-vlp",
        "pipeline_tag": "zero-shot-image-classification",
        "license": facts.licence or _UNKNOWN,
        "tags": ["vision-language", *about, facts.objective],
    }
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).strip()


def _code(described: dict[str, Any]) -> str:
    """What `describe_code` told, and after which step it trained if not from the first."""
    step, commit = described.get("after_step"), described["commit"]
    parts = [f"Canopy {described['version'] or _UNKNOWN}", commit and f"commit {commit}"]
    told = ", ".join([*filter(None, parts), f"torch {described['torch']}"])
    return f"after step {step:,} {told}" if step else told


def _number(given: float, shown: float, form: str, unit: str = "") -> str:
    return f"{shown:{form}}{unit}" if math.isfinite(given) else "not a number"


def _cell(text: object) -> str:
    """Fit for one cell of a table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def _headline(result: dict[str, Any]) -> str:
    """The few figures of a benchmark that are most asked for, in one cell."""
    cells = headline(result).items()
    return ", ".join(
        f"{n} {x:,}" if isinstance(x, int) else f"{n} {_number(x, x, '.3f')}" for n, x in cells
    )
