"""Recall at k and median rank of a score matrix, both ways, next to chance."""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from math import exp, lgamma

import torch
from torch import Tensor

_ROWS = 512  # images whose comparisons are held at once


@dataclass(frozen=True)
class Recall:
    """One direction of retrieval. Recalls are shares of the queries, ranks start at 1."""

    r1: float
    r5: float
    r10: float
    median_rank: float


@dataclass(frozen=True)
class RetrievalResult:
    """Both directions of one score matrix."""

    text_to_image: Recall
    image_to_text: Recall


def text_to_image_ranks(scores: Tensor, image_of_text: Tensor) -> Tensor:
    """Rank of each text's image among all images, (num_texts,) int64, best 1.

    `scores` is (num_images, num_texts), `image_of_text` (num_texts,) int64. Ties are pessimistic:
    every image that is not strictly below the right one counts as ahead of it, so a model that
    gives every pair the same score (or NaN) finds nothing.
    """
    right = scores.gather(0, image_of_text[None, :])
    below = torch.zeros_like(image_of_text)
    for rows in scores.split(_ROWS):
        below += (rows < right).sum(dim=0)
    return scores.shape[0] - below


def image_to_text_ranks(scores: Tensor, image_of_text: Tensor) -> Tensor:
    """Rank of each image's best text among all texts, (num_images,) int64, best 1.

    With several texts an image the best of them is the hit, and its siblings are not in its way.
    An image without a text has no rank; ties are pessimistic as in `text_to_image_ranks`.
    """
    ranks = []
    for start, rows in zip(range(0, len(scores), _ROWS), scores.split(_ROWS), strict=True):
        own = image_of_text[None, :] == torch.arange(start, start + len(rows))[:, None]
        best = rows.masked_fill(~own, float("-inf")).amax(dim=1, keepdim=True)
        not_below = (~(rows < best) & ~own).sum(dim=1) + 1
        ranks.append(not_below[own.any(dim=1)])
    return torch.cat(ranks)


def retrieval(scores: Tensor, image_of_text: Tensor | None = None) -> RetrievalResult:
    """Recall at 1, 5, 10 and median rank of `scores` (num_images, num_texts), both ways.

    Without `image_of_text` text i belongs to image i.
    """
    if image_of_text is None:
        assert scores.shape[0] == scores.shape[1], "one text an image, or image_of_text"
        image_of_text = torch.arange(scores.shape[0])
    return RetrievalResult(
        text_to_image=recall_of_ranks(text_to_image_ranks(scores, image_of_text)),
        image_to_text=recall_of_ranks(image_to_text_ranks(scores, image_of_text)),
    )


def chance(num_images: int, image_of_text: Tensor | None = None) -> RetrievalResult:
    """What a random order of the candidates is expected to reach, both ways."""
    if image_of_text is None:
        image_of_text = torch.arange(num_images)
    num_texts = len(image_of_text)
    texts_of_image = torch.bincount(image_of_text, minlength=num_images).tolist()
    num_with = Counter(count for count in texts_of_image if count > 0)

    def image_recall(k: int) -> float:
        return min(1.0, k / num_images)

    def text_recall(k: int) -> float:
        # Missed are images of which none of m texts is among the first k of M: C(M-k, m) / C(M, m).
        misses = (
            num_images * exp(_log_comb(num_texts - k, m) - _log_comb(num_texts, m))
            for m, num_images in num_with.items()
            if k + m <= num_texts
        )
        return 1.0 - sum(misses) / sum(num_with.values())

    # The best text's rank, its siblings behind it, is above k if none is among the first k.
    # Half of the images may be found exactly at some rank: the middle up to the next one, then.
    ends = [bisect_left(range(num_texts + 1), 0.5 + e, key=text_recall) for e in (-1e-9, 1e-9)]
    median_rank = sum(ends) / 2
    return RetrievalResult(
        text_to_image=Recall(
            image_recall(1), image_recall(5), image_recall(10), (num_images + 1) / 2
        ),
        image_to_text=Recall(text_recall(1), text_recall(5), text_recall(10), median_rank),
    )


def _log_comb(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def recall_of_ranks(ranks: Tensor) -> Recall:
    """Recalls and median of ranks that start at 1, (num_queries,)."""
    r1, r5, r10 = ((ranks <= k).double().mean().item() for k in (1, 5, 10))
    return Recall(r1, r5, r10, median_rank=ranks.double().quantile(0.5).item())
