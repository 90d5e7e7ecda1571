"""Means of features over segments, and what to put where a segment is empty."""

from collections.abc import Sequence

import torch
from torch import Tensor


def segment_means(
    features: Sequence[Tensor], labels: Tensor, num_segments: int
) -> tuple[list[Tensor], Tensor]:
    """Means of the features that carry the same label, per image.

    Deterministic on every device: on a GPU, where adding rows by index is not, it is a product
    with the one-hot labels.

    Args:
        features: any number of (B, N, C), C as it comes.
        labels: (B, N) int64, below `num_segments`.
        num_segments: number of segments S.

    Returns:
        (B, S, C) means of each, zero for empty segments; (B, S) bool, True for empty segments.
    """
    batch = len(labels)
    index = _flat_index(labels, num_segments)
    if labels.is_cuda:
        members = labels.unsqueeze(1) == torch.arange(num_segments, device=labels.device).view(
            -1, 1
        )
        counts = members.sum(dim=2)
        sums = [members.to(x.dtype) @ x for x in features]
    else:
        # Not by `bincount`, whose size depends on the data and which a compiler cannot see through.
        zeros_of_counts = index.new_zeros(batch * num_segments)
        counts = zeros_of_counts.index_add(0, index, torch.ones_like(index)).view(batch, -1)
        zeros = (x.new_zeros(batch * num_segments, x.shape[2]) for x in features)
        sums = [
            zero.index_add(0, index, x.flatten(0, 1)).view(batch, num_segments, -1)
            for zero, x in zip(zeros, features, strict=True)
        ]
    weights = counts.clamp(min=1).unsqueeze(2)
    return [x / weights for x in sums], counts == 0


@torch.no_grad()
def segment_centroids(labels: Tensor, num_segments: int) -> Tensor:
    """(B, H, W) labels -> (B, S, 2) mean (row, column) in pixels; (0, 0) for a segment without any.

    Sums are of integers, hence exact in any order.
    """
    batch, height, width = labels.shape
    index = _flat_index(labels, num_segments)
    rows = torch.arange(height, device=labels.device).view(1, height, 1).expand_as(labels)
    columns = torch.arange(width, device=labels.device).view(1, 1, width).expand_as(labels)
    sums = [
        index.new_zeros(batch * num_segments).scatter_add_(0, index, values.flatten())
        for values in (rows, columns, torch.ones_like(labels))
    ]
    counts = sums[2].clamp(min=1)
    return (torch.stack(sums[:2], dim=1) / counts.unsqueeze(1)).view(batch, num_segments, 2)


@torch.no_grad()
def nearest_live(centroids: Tensor, dead: Tensor) -> Tensor:
    """Index of the nearest live segment for each dead one, of itself for each live one.

    Args:
        centroids: (B, S, 2).
        dead: (B, S) bool.

    Returns:
        (B, S) int64; the lowest index on ties.
    """
    rows, columns = centroids.unbind(dim=2)
    distances = (rows.unsqueeze(2) - rows.unsqueeze(1)).square_()
    distances += (columns.unsqueeze(2) - columns.unsqueeze(1)).square_()
    nearest = distances.masked_fill_(dead.unsqueeze(1), torch.inf).min(dim=2).indices
    itself = torch.arange(dead.shape[1], device=dead.device).expand_as(dead)
    return torch.where(dead, nearest, itself)


def _flat_index(labels: Tensor, num_segments: int) -> Tensor:
    """(B, ...) labels -> flat labels that differ between images."""
    first = torch.arange(len(labels), device=labels.device) * num_segments
    return (labels.flatten(1) + first.unsqueeze(1)).flatten()
