"""The two sigmoid losses of texts that are parts of a caption (FLAIR, CAFT)."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from pretrain.objectives.candidates import owned
from pretrain.objectives.contrastive import sigmoid_contrast
from pretrain.ops.attention_pooling import AttentionPooling, KeysValues
from pretrain.ops.text_conditioned import chosen_cosines

#: More tokens an image than this do not fit into a block of the fused kernels.
MAX_FUSED_TOKENS = 128


class PartLosses(NamedTuple):
    """Sums over pairs of -log sigmoid(y s), of the texts of one rank."""

    local: Tensor
    whole: Tensor


def part_losses(
    pooling: AttentionPooling,
    image: KeysValues,
    pooled: Tensor,
    parts: Tensor,
    chosen: Tensor,
    scale: Tensor,
    bias: Tensor,
    is_own: bool,
    chunk_size: int,
) -> PartLosses:
    """Texts against what they see of the image's tokens, and against the image as a whole.

    Args:
        image: keys and values of B images.
        pooled: (B, D) features of the images, of length 1.
        parts: (B, K, D) texts of as many images: of these, or of those of another rank.
        chosen: (B, Q) int64: which of the B * K texts each image meets locally.
        scale, bias: (1,) of the logits.
        is_own: the texts are of these images; else all of them are negatives.
        chunk_size: as in `chosen_cosines`.
    """
    batch, num_texts, _ = parts.shape
    texts = parts.flatten(0, 1)
    positive = owned(chosen, num_texts) if is_own else None
    local = chosen_sigmoid_loss(pooling, image, texts, chosen, positive, scale, bias, chunk_size)
    logits = scale * pooled @ F.normalize(texts, dim=1).T + bias
    every = torch.arange(batch * num_texts, device=texts.device).expand(batch, -1)
    return PartLosses(local, sigmoid_contrast(logits, owned(every, num_texts) if is_own else None))


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

    On a GPU by the fused kernels, which keep nothing of the size of the pairs; elsewhere by
    `chosen_cosines`, whose arguments these are.

    Args:
        positive: (B, Q) bool, y = +1 where True and -1 elsewhere; None: all negative.
        scale, bias: (1,) each.
    """
    if not fits_fused_kernels(image):
        cosines = chosen_cosines(pooling, image, texts, chosen, chunk_size)
        return sigmoid_contrast(scale * cosines + bias, positive)
    # Imported late: it needs Triton, which is where GPUs are.
    from pretrain.ops.fused_pooling import PoolingInputs, pooling_sigmoid_loss

    sign = torch.full(chosen.shape, -1.0, device=texts.device)
    return pooling_sigmoid_loss(
        PoolingInputs(
            queries=pooling.project_queries(texts),
            directions=F.normalize(texts, dim=1),
            keys=image.keys,
            values=image.values,
            weight=pooling.project.weight,
            bias=pooling.project.bias,
            scale=scale,
            logit_bias=bias,
            chosen=chosen,
            sign=sign if positive is None else sign.masked_fill(positive, 1.0),
        )
    )


def fits_fused_kernels(image: KeysValues) -> bool:
    """Whether the Triton kernels can work with these tokens, where they are."""
    return image.keys.is_cuda and image.keys.shape[2] - 1 <= MAX_FUSED_TOKENS
