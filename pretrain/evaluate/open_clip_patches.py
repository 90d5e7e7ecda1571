"""Patch features of open_clip's plain vision transformers, in the space of their image features."""

from typing import Any

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor


def has_patches(model: Any) -> bool:
    """Whether `encode_with_patches` can be asked: the class token passes the last norm and the
    projection, so that patches can pass them, too. Not so with attention pooling, or other towers.
    """
    visual = model.visual
    return (
        isinstance(visual, VisionTransformer)
        and visual.attn_pool is None
        and visual.pool_type == "tok"
        and not visual.final_ln_after_pool
        and visual.grid_size[0] == visual.grid_size[1]
    )


@torch.inference_mode()
def encode_with_patches(model: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """(B, D) as `encode_image` gives it, and (B, N, D) of the patches, row by row.

    The patches are projected as the class token is ("CLIP" without changes in the tables of
    "Extract Free Dense Labels from CLIP", Zhou et al. 2022, and later ones).
    """
    visual = model.visual
    before, visual.output_tokens = visual.output_tokens, True
    try:
        pooled, tokens = visual(pixels)
    finally:
        visual.output_tokens = before
    return pooled, tokens if visual.proj is None else tokens @ visual.proj
