"""The model card: what a run was made of and what it reached. What is not known is said to be."""

from pathlib import Path
from typing import Any

import jinja2

from pretrain.config import PretrainConfig
from pretrain.data.transforms import IMAGE_MEAN, IMAGE_STD
from recaption.common.files import read_json

_TEMPLATE = Path(__file__).with_name("card.md.jinja")


def write_card(
    name: str,
    config: PretrainConfig,
    state: dict[str, Any],
    weights: dict[str, Any],
    num_parameters: int,
    evaluation: dict[str, Any] | None,
    evaluation_note: str,
) -> str:
    """The card as Markdown.

    Args:
        name: of the release.
        state: `state.json` of the checkpoint: `step`, `num_samples_seen`.
        weights: as `describe_weights` gives them.
        evaluation: `evaluation.json` of these very weights, if there is one.
        evaluation_note: why there is none.
    """
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["percent"] = lambda share: f"{100 * share:.1f} %"
    environment.filters["count"] = lambda number: f"{number:,}"
    return environment.from_string(_TEMPLATE.read_text()).render(
        name=name,
        config=config,
        step=state.get("step"),
        num_samples_seen=state.get("num_samples_seen"),
        weights=weights,
        num_parameters=num_parameters,
        data=read_pack_summary(config),
        evaluation=evaluation,
        evaluation_note=evaluation_note,
        mean=IMAGE_MEAN,
        std=IMAGE_STD,
    )


def read_pack_summary(config: PretrainConfig) -> dict[str, Any] | None:
    """The summary in the training shards' `pack.json`; None if it is not to be found."""
    path = Path(config.data.train) / "pack.json"
    if not path.is_file():
        return None
    summary: dict[str, Any] = read_json(path)["summary"]
    return summary
