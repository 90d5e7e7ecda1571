"""Retrieval on a benchmark: recalls both ways with their intervals, next to chance."""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pretrain.evaluate import bootstrap
from pretrain.evaluate.benchmarks.base import RetrievalSet
from pretrain.evaluate.bootstrap import share_intervals
from pretrain.evaluate.encode_shared import encode_captions, encode_images
from pretrain.evaluate.encoders import Encoders, Scorer, share_cut
from pretrain.evaluate.retrieval import (
    chance,
    image_to_text_ranks,
    recall_of_ranks,
    text_to_image_ranks,
)
from pretrain.evaluate.sharing import is_first, join_rows, own_items, rank_and_size
from pretrain.evaluate.streamed import TILE, streamed_scores

INTERVALS = f"{bootstrap.INTERVALS}, the candidates unchanged"
_RECALLS = {"r1": 1, "r5": 5, "r10": 10}
_NUM_EXAMPLES = 8  # texts kept for the report, of the best and of the worst
_NUM_CANDIDATES = 5  # images kept for each of them


def evaluate(data: RetrievalSet, encoders: Encoders, batch_size: int) -> dict[str, Any]:
    """Figures of every score of the encoders; see `docs/evaluation.md` for what they mean.

    Where several ranks make this call together they share the work, and the first has the figures;
    the others get none.
    """
    scores = score_all(data, encoders, batch_size)
    return figures(scores, data, encoders) if is_first() else {}


def score_all(data: RetrievalSet, encoders: Encoders, batch_size: int) -> dict[str, Tensor]:
    """(num_images, num_texts) scores by name, the retrieval score first; on the first rank only.

    A text that several images have is encoded and scored once: in two batches it could be rounded
    in two ways, and then be above or below itself.
    """
    unique = {text: column for column, text in enumerate(dict.fromkeys(data.texts))}
    texts = encode_captions(list(unique), encoders, batch_size)
    own = own_items(len(data.images), TILE, *rank_and_size())
    images = encode_images([data.images[place] for place in own], encoders, batch_size)
    rows = streamed_scores(encoders, images, len(own), texts)
    scores = join_rows(rows, len(data.images), TILE)
    del rows  # each of these may be GB
    if len(unique) < len(data.texts):
        columns = torch.tensor([unique[text] for text in data.texts])
        for name in scores:
            scores[name] = scores[name][:, columns]
    return scores


def figures(scores: dict[str, Tensor], data: RetrievalSet, encoders: Scorer) -> dict[str, Any]:
    """What is told of score matrices (num_images, num_texts), the retrieval score first."""
    image_of_text = torch.tensor(data.image_of_text)
    return {
        "num_images": len(data.images),
        "num_texts": len(data.texts),
        "share_cut": share_cut(encoders, data.texts),
        "columns": {name: _both_ways(matrix, image_of_text) for name, matrix in scores.items()},
        "chance": asdict(chance(len(data.images), image_of_text)),
        "intervals": INTERVALS,
        "examples": _examples(next(iter(scores.values())), image_of_text, data),
    }


def _both_ways(scores: Tensor, image_of_text: Tensor) -> dict[str, Any]:
    by_text = text_to_image_ranks(scores, image_of_text)
    by_image = image_to_text_ranks(scores, image_of_text)
    return {
        "text_to_image": _recalls(by_text, image_of_text),
        "image_to_text": _recalls(by_image, torch.arange(len(by_image))),
    }


def _recalls(ranks: Tensor, image_of_query: Tensor) -> dict[str, Any]:
    hits = torch.stack([ranks <= k for k in _RECALLS.values()], dim=1).double().numpy()
    intervals = share_intervals(hits, image_of_query.numpy().astype(np.int64))
    named = {f"{name}_interval": ends for name, ends in zip(_RECALLS, intervals, strict=True)}
    return asdict(recall_of_ranks(ranks)) | named


def _examples(scores: Tensor, image_of_text: Tensor, data: RetrievalSet) -> dict[str, list]:
    """Texts whose image came first by the widest margin, and those whose image came last."""
    ranks = text_to_image_ranks(scores, image_of_text)
    right = scores.gather(0, image_of_text[None])[0]
    best = scores.topk(min(2, len(scores)), dim=0).values
    margin = right - best[-1]  # where the right one is first, the other is the second
    found = [t for t in margin.argsort(descending=True, stable=True).tolist() if ranks[t] == 1]
    lost = [t for t in ranks.argsort(descending=True, stable=True).tolist() if ranks[t] > 1]

    def describe(text: int) -> dict[str, Any]:
        order = scores[:, text].argsort(descending=True, stable=True)[:_NUM_CANDIDATES]
        own = data.image_of_text[text]
        return {
            "text": data.texts[text],
            "image": data.images[own].name,
            "rank": int(ranks[text]),
            "candidates": [data.images[image].name for image in order.tolist()],
        }

    return {
        "found": [describe(text) for text in found[:_NUM_EXAMPLES]],
        "lost": [describe(text) for text in lost[:_NUM_EXAMPLES]],
    }
