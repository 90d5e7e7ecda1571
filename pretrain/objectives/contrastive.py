"""The two forms of contrast that objectives are made of, on matrices of logits."""

import torch
from torch import Tensor
from torch.nn import functional as F

from pretrain.distributed.exchange import Exchange


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
        negatives: (B, N) logits of false ones, -inf where there is none.
    """
    return F.softplus(negatives.logsumexp(dim=1, keepdim=True) - positives).mean()


def column_contrast(logits: Tensor, own: Tensor, exchange: Exchange) -> Tensor:
    """Mean cross entropy of this rank's texts over the images of all ranks.

    Args:
        logits: (B, T) of this rank's images against the texts of all ranks, in rank order.
        own: (number of this rank's texts, 2) int64 pairs (image row, text column) that are true.

    Returns:
        Mean over the own texts of -log softmax over all images of the true image's logit.
    """
    over_images = exchange.gather(logits.logsumexp(dim=0, keepdim=True)).logsumexp(dim=0)
    rows, columns = own.unbind(dim=1)
    return (over_images[columns] - logits[rows, columns]).mean()
