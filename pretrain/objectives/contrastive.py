"""The two forms of contrast that objectives are made of, on matrices of logits."""

import torch
from torch import Tensor
from torch.nn import functional as F


def sigmoid_contrast(logits: Tensor, positive: Tensor | None = None) -> Tensor:
    """Sum of -log sigmoid(y s) over all pairs (SigLIP).

    Args:
        logits: scaled and biased similarities, any shape.
        positive: bool of the same shape, y = +1 where True and -1 elsewhere; None: all negative.
    """
    signed = -logits if positive is None else torch.where(positive, logits, -logits)
    return -F.logsigmoid(signed).sum()


def softmax_contrast(positives: Tensor, negatives: Tensor) -> Tensor:
    """Mean InfoNCE with several positives: each in a softmax of its own with all negatives.

    -log(e^p / (e^p + sum e^n)), averaged over positives and rows. Positives do not compete with
    each other, so the term can reach zero.

    Args:
        positives: (B, P) logits of true pairs.
        negatives: (B,) log-sum-exp of the logits of false ones, -inf where there is none.
    """
    return F.softplus(negatives.unsqueeze(1) - positives).mean()
