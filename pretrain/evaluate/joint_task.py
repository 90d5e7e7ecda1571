"""Retrieval among whole pictures and parts of them together: mAP@10 (GOAL, CVPR 2025).

To a picture belong its own text and the texts of its parts; to a part its own text and that of the
picture it was cut from. The other way round likewise.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pretrain.evaluate.benchmarks.base import JointSet
from pretrain.evaluate.bootstrap import share_intervals
from pretrain.evaluate.encoders import Encoders, share_cut
from pretrain.evaluate.retrieval_task import INTERVALS, score_all
from pretrain.evaluate.sharing import is_first

_K = 10


def evaluate(data: JointSet, encoders: Encoders, batch_size: int) -> dict[str, Any]:
    """mAP@10 both ways of every score of the encoders, the retrieval score's first.

    Ranks that make this call together share the work, and the first has the figures.
    """
    scores = score_all(data, encoders, batch_size)
    if not is_first():
        return {}
    belongs, asked = belonging(data), is_asked(data)
    first, *others = (_both_ways(matrix, belongs, asked, data) for matrix in scores.values())
    return {
        "num_images": len(data.images),
        "num_texts": len(data.texts),
        **first,
        **dict(zip(list(scores)[1:], others, strict=True)),
        "share_cut": share_cut(encoders, data.texts),
        "chance": _chance(belongs, asked),
        "intervals": INTERVALS,
    }


def average_precisions(scores: Tensor, belongs: Tensor, k: int = _K) -> Tensor:
    """AP@k of each query, (num_queries,) float64: the mean, over all that belong to it, of the
    precision where each is found, 0 for what is not among the first k.

    Args:
        scores: (num_queries, num_candidates).
        belongs: (num_queries, num_candidates) bool. A query to which nothing belongs has 0.

    Of equal scores those of others come first; NaN is never found.
    """
    scores = scores.masked_fill(scores.isnan(), float("-inf"))
    others_first = belongs.to(torch.uint8).argsort(dim=1, stable=True)
    order = scores.gather(1, others_first).argsort(dim=1, descending=True, stable=True)
    found = belongs.gather(1, others_first.gather(1, order[:, :k])).double()
    precision = found.cumsum(dim=1) / torch.arange(1, found.shape[1] + 1)
    return (found * precision).sum(dim=1) / belongs.sum(dim=1).clamp_min(1)


def belonging(data: JointSet) -> Tensor:
    """(num_images, num_texts) bool: which texts belong to which pictures.

    The same text of several pictures belongs to all that any of them belongs to.
    """
    whole = torch.tensor(data.whole_of_image)
    image = torch.arange(len(whole))
    of_text = torch.tensor(data.image_of_text)
    belongs = image[:, None] == of_text[None, :]
    belongs |= image[:, None] == whole[of_text][None, :]
    belongs |= whole[:, None] == of_text[None, :]
    first_of = first_alike(data)
    alike = torch.zeros(len(whole), len(of_text), dtype=torch.int32)
    alike.index_add_(1, first_of, belongs.int())
    return alike[:, first_of] > 0


def first_alike(data: JointSet) -> Tensor:
    """(num_texts,) int64: the first text that reads the same."""
    first: dict[str, int] = {}
    return torch.tensor([first.setdefault(text, n) for n, text in enumerate(data.texts)])


def is_asked(data: JointSet) -> Tensor:
    """(num_texts,) bool: a text that several pictures have is asked for once."""
    first = first_alike(data)
    return first == torch.arange(len(first))


def _both_ways(scores: Tensor, belongs: Tensor, asked: Tensor, data: JointSet) -> dict[str, Any]:
    whole = np.array(data.whole_of_image)
    figures: dict[str, Any] = {}
    for way, values, cluster in (
        (
            "text_to_image",
            average_precisions(scores.T[asked], belongs.T[asked]),
            whole[np.array(data.image_of_text)[asked.numpy()]],
        ),
        ("image_to_text", average_precisions(scores, belongs), whole),
    ):
        figures[f"{way}_map10"] = values.mean().item()
        figures[f"{way}_map10_interval"] = share_intervals(values[:, None].numpy(), cluster)[0]
    return figures


def _chance(belongs: Tensor, asked: Tensor) -> Mapping[str, float]:
    num_images, num_texts = belongs.shape
    return {
        "text_to_image_map10": expected_precision(belongs.T[asked].sum(dim=1), num_images),
        "image_to_text_map10": expected_precision(belongs.sum(dim=1), num_texts),
    }


def expected_precision(num_right: Tensor, num_candidates: int, k: int = _K) -> float:
    """Mean AP@k of a random order, for queries to which `num_right` candidates belong."""
    right = num_right.double()
    places = torch.arange(min(k, num_candidates), dtype=torch.float64)  # candidates ahead
    # At any place one that belongs stands with right / num_candidates, and so do, of those ahead
    # of it, (right - 1) / (num_candidates - 1).
    ahead = places[:, None] * (right - 1) / max(num_candidates - 1, 1)
    return ((1 + ahead) / (places[:, None] + 1)).sum(dim=0).div(num_candidates).mean().item()
