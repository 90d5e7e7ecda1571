"""A contrastive loss of retrieval that means the same whatever a model was trained with."""

from math import isfinite, log

import torch
from torch import Tensor

_ROWS = 512  # queries whose probabilities are held at once
#: Scales of scores whose standard deviation is 1.
_SHARPEST = 1000.0
_MAX_PASSES, _TOLERANCE = 40, 1e-4


def retrieval_loss(scores: Tensor) -> float:
    """The contrastive loss (InfoNCE) of retrieval both ways among all pairs, at its best scale.

    Text j is that of image i with the probability p(j | i) = softmax_j(s scores_ij), and p(i | j)
    likewise. The loss is the mean of -log p(i | i) over images and texts, at the one s >= 0 for
    which that is least. So it does not depend on a model's own scale, bias or loss: scores times a
    factor or plus a constant have the same. 0 is perfect retrieval, log(num_pairs) is chance.

    Args:
        scores: (num_pairs, num_pairs), image i's text is i.
    """
    spread = scores.double().std().item()
    if not isfinite(spread):
        return float("nan")
    if spread == 0:
        return log(len(scores))
    # Convex in s: Newton's steps towards the slope's zero, halving where one leaves the bracket.
    low, high, scale = 0.0, _SHARPEST, 1.0
    for _ in range(_MAX_PASSES):
        loss, slope, curvature = _at(scores, spread, scale)
        low, high = (scale, high) if slope < 0 else (low, scale)
        step = scale - slope / curvature if curvature > 0 else high
        after = step if low < step < high else (low + high) / 2
        if abs(after - scale) <= _TOLERANCE * scale or high < _TOLERANCE:
            break
        scale = after
    return loss


def _at(scores: Tensor, spread: float, scale: float) -> tuple[float, float, float]:
    """The loss, and its first and second derivative by ``scale``."""
    sums = torch.zeros(3, dtype=torch.float64)
    for way in (scores, scores.T):
        for start in range(0, len(way), _ROWS):
            rows = way[start : start + _ROWS].double() / spread
            own = rows.diagonal(start)
            logits = scale * rows
            probabilities = logits.softmax(dim=1)
            mean = (probabilities * rows).sum(dim=1)
            variance = (probabilities * (rows - mean[:, None]).square()).sum(dim=1)
            loss = logits.logsumexp(dim=1) - scale * own
            sums += torch.stack([loss.sum(), (mean - own).sum(), variance.sum()])
    loss, slope, curvature = (sums / (2 * len(scores))).tolist()
    return loss, slope, curvature
