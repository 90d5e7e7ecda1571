"""The retrieval scores of an objective: the one it is judged by, and what that is blended from."""

import copy
from dataclasses import replace

import torch
from torch import Tensor

from pretrain.models.features import ImageFeatures, TextFeatures
from pretrain.objectives.base import Objective
from pretrain.objectives.caft import CaftObjective
from recaption.common.config import UserError


def resolve_alpha(objective: Objective, alpha: float | None) -> float | None:
    """The share of CAFT's local score in its retrieval score: `alpha`, or the objective's own.

    None for an objective that blends nothing.

    Raises:
        UserError: if `alpha` is given for such an objective.
    """
    if isinstance(objective, CaftObjective):
        return objective.config.alpha if alpha is None else alpha
    if alpha is not None:
        raise UserError("alpha blends CAFT's whole and local scores; this model is no CAFT")
    return None


def score_columns(
    objective: Objective,
    images: ImageFeatures,
    texts: TextFeatures,
    block: int,
    alpha: float | None = None,
) -> dict[str, Tensor]:
    """(num_images, num_texts) matrices on the CPU by name, the retrieval score first.

    CAFT's score is a blend, (1 - alpha) whole + alpha local, so its two ends come along.
    """
    share = resolve_alpha(objective, alpha)
    if not isinstance(objective, CaftObjective) or share is None:
        return {"score": score_matrix(objective, images, texts, block)}
    whole = score_matrix(with_alpha(objective, 0.0), images, texts, block)
    local = score_matrix(with_alpha(objective, 1.0), images, texts, block)
    return {"blended": (1 - share) * whole + share * local, "whole": whole, "local": local}


@torch.inference_mode()
def score_matrix(
    objective: Objective, images: ImageFeatures, texts: TextFeatures, block: int
) -> Tensor:
    """The objective's score of every image with every text, `block` x `block` pairs at a time."""
    rows = []
    for row in range(0, len(images), block):
        some = images[row : row + block]
        columns = range(0, len(texts), block)
        blocks = [objective.score(some, texts[at : at + block]).float().cpu() for at in columns]
        rows.append(torch.cat(blocks, dim=1))
    return torch.cat(rows)


def with_alpha(objective: CaftObjective, alpha: float) -> CaftObjective:
    """The same objective, parameters shared, with another blend."""
    other = copy.copy(objective)
    other.config = replace(objective.config, alpha=alpha)
    return other
