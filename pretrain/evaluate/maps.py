"""From the relevance of tokens to heat maps over pixels."""

from math import isqrt

import torch
from torch import Tensor
from torch.nn import functional

from pretrain.data.transforms import Box
from pretrain.models.features import SegmentHierarchy


def pixel_maps(relevance: Tensor, hierarchy: SegmentHierarchy | None, size: int) -> Tensor:
    """Paints the relevance of tokens over the pixels they stand for.

    Args:
        relevance: (B, Q, M), one value a token: of that level of `hierarchy` which has M segments,
            or, without a hierarchy, of a square grid of patches, row by row.
        size: side of the image that the model saw, pixels.

    Returns:
        (B, Q, size, size). Without smoothing: a map is flat within a superpixel or patch.
    """
    num_tokens = relevance.shape[-1]
    if hierarchy is None:
        side = isqrt(num_tokens)
        if side * side != num_tokens:
            raise ValueError(f"{num_tokens} tokens are no square grid of patches")
        grid = relevance.unflatten(-1, (side, side))
        return functional.interpolate(grid, size=(size, size), mode="nearest-exact")
    return hierarchy.to_pixels(relevance, hierarchy.num_segments.index(num_tokens))


def peak(heat: Tensor) -> tuple[int, int]:
    """Row and column of the peak of a map (H, W).

    Maps are flat within a segment, so the peak is the pixel of the hottest segment that is nearest
    to that segment's centre of mass; it always lies inside the segment. A map that holds NaN has no
    peak: ask first.
    """
    hottest = (heat == heat.max()).nonzero()
    centre = hottest.double().mean(dim=0)
    nearest = (hottest - centre).square().sum(dim=1).argmin()
    row, column = hottest[nearest].tolist()
    return row, column


def normalised(heat: Tensor) -> Tensor:
    """Each map of (..., H, W) stretched to [0, 1]; a flat map becomes all zeros."""
    low = heat.amin(dim=(-2, -1), keepdim=True)
    high = heat.amax(dim=(-2, -1), keepdim=True)
    return (heat - low) / (high - low).clamp_min(torch.finfo(heat.dtype).tiny)


def clip_box(box: Box, seen: Box) -> Box | None:
    """A box of the picture as fractions of its part `seen`; None if nothing of it is there."""
    left, right = ((x - seen[0]) / (seen[2] - seen[0]) for x in (box[0], box[2]))
    top, bottom = ((y - seen[1]) / (seen[3] - seen[1]) for y in (box[1], box[3]))
    left, top, right, bottom = max(left, 0.0), max(top, 0.0), min(right, 1.0), min(bottom, 1.0)
    return (left, top, right, bottom) if left < right and top < bottom else None
