"""Figures go into a release only with the weights that they were measured with."""

from pathlib import Path
from typing import Any

from pretrain.config import PretrainConfig
from pretrain.evaluate.command import RESULT
from recaption.common.files import read_json


def matching_evaluation(
    run: Path, config: PretrainConfig, weights: dict[str, Any]
) -> tuple[dict[str, Any] | None, str]:
    """The run's evaluation if it is one of these very weights, as trained; else None and why."""
    path = run / RESULT
    if not path.is_file():
        return None, "the run has not been evaluated"
    evaluation: dict[str, Any] = read_json(path)
    if evaluation["checkpoint"]["sha256"] != weights["sha256"]:
        other = evaluation["checkpoint"]["folder"]
        return None, f"the run was evaluated at another checkpoint ({other})"
    size = config.model.image.size
    if evaluation["image_size"] != size:
        return None, f"the run was evaluated on images of {evaluation['image_size']} px, not {size}"
    return evaluation, ""
