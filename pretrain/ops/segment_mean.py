"""Means of features over segments, and what to put where a segment is empty."""

import torch
from torch import Tensor
from torch.nn import functional as F


def segment_mean(features: Tensor, labels: Tensor, num_segments: int) -> tuple[Tensor, Tensor]:
    """Mean of the features that carry the same label, per image.

    Deterministic on every device: on a GPU, where adding rows by index is not, it is a product
    with the one-hot labels.

    Args:
        features: (B, N, C).
        labels: (B, N) int64, below `num_segments`.
        num_segments: number of segments S.

    Returns:
        (B, S, C) means, zero for empty segments; (B, S) bool, True for empty segments.
    """
    batch, _, channels = features.shape
    index = _flat_index(labels, num_segments)
    counts = torch.bincount(index, minlength=batch * num_segments).view(batch, num_segments)
    if features.is_cuda:
        members = F.one_hot(labels, num_segments).transpose(1, 2).to(features.dtype)  # (B, S, N)
        sums = members @ features
    else:
        sums = features.new_zeros(batch * num_segments, channels)
        sums = sums.index_add(0, index, features.flatten(0, 1)).view(batch, num_segments, channels)
    return sums / counts.clamp(min=1).unsqueeze(2), counts == 0


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
