"""Text-conditioned pairs (FLAIR, CAFT): which texts an image meets, and the loss of these pairs.

An image does not meet all texts here, as pooling for a pair costs much more than a product.
"""

import importlib.util

import torch
from torch import Tensor
from torch.nn import functional as F

from pretrain.objectives.contrastive import sigmoid_contrast
from pretrain.ops.attention_pooling import AttentionPooling, KeysValues
from pretrain.ops.text_conditioned import chosen_cosines


def own_and_drawn(drawn: Tensor, num_texts: int) -> Tensor:
    """(B, B) drawn texts -> (B, K + B - 1) flat numbers: an image's own texts, then the others'."""
    batch = len(drawn)
    images = torch.arange(batch, device=drawn.device)
    own = images.unsqueeze(1) * num_texts + torch.arange(num_texts, device=drawn.device)
    others = images * num_texts + drawn
    off_diagonal = ~torch.eye(batch, dtype=torch.bool, device=drawn.device)
    return torch.cat([own, others[off_diagonal].view(batch, batch - 1)], dim=1)


def owned(chosen: Tensor, num_texts: int) -> Tensor:
    """(B, Q) flat numbers of texts -> (B, Q) bool, True where a text is the image's own."""
    rows = torch.arange(len(chosen), device=chosen.device)
    return chosen // num_texts == rows.unsqueeze(1)


def chosen_sigmoid_loss(
    pooling: AttentionPooling,
    image: KeysValues,
    texts: Tensor,
    chosen: Tensor,
    positive: Tensor | None,
    scale: Tensor,
    bias: Tensor,
    chunk_size: int,
) -> Tensor:
    """Sum of -log sigmoid(y (scale cos + bias)) over texts and what each sees of an image.

    On a GPU by the fused kernels, which keep nothing of the size of the pairs; elsewhere, and where
    Triton is missing, by `chosen_cosines`, whose arguments these are.

    Args:
        positive: (B, Q) bool, y = +1 where True and -1 elsewhere; None: all negative.
        scale, bias: (1,) each.
    """
    if not uses_fused_kernels(texts):
        cosines = chosen_cosines(pooling, image, texts, chosen, chunk_size)
        return sigmoid_contrast(scale * cosines + bias, positive)
    # Imported late: it needs Triton, which is where GPUs are.
    from pretrain.ops.fused_pooling import pooling_sigmoid_loss

    negative = torch.full(chosen.shape, -1.0, device=texts.device)
    return pooling_sigmoid_loss(
        pooling.project_queries(texts),
        F.normalize(texts, dim=1),
        image.keys[:, :, :-1],  # the kernels know the zero key by themselves
        image.values[:, :, :-1],
        pooling.project.weight,
        pooling.project.bias,
        scale,
        bias,
        chosen,
        negative if positive is None else negative.masked_fill(positive, 1.0),
    )


def uses_fused_kernels(x: Tensor) -> bool:
    """Whether the Triton kernels can work where this tensor is."""
    return x.is_cuda and importlib.util.find_spec("triton") is not None
