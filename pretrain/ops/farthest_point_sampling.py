"""Farthest point sampling, as graph pooling chooses its segments."""

import torch
from torch import Tensor


@torch.no_grad()
def farthest_point_sampling(
    tokens: Tensor, num_samples: int, masked: Tensor | None = None
) -> Tensor:
    """Picks tokens that are far from each other, beginning far from their mean (CAST, CAFT).

    The points are [mean token; tokens]; the mean is the first pick and is dropped afterwards. Each
    next pick is the point whose squared Euclidean distance to the nearest pick is largest, the
    lowest index on ties. Distances are in float64, all of them from one product of matrices, so
    that the sequential part touches N numbers a step instead of N x C.

    Args:
        tokens: (B, N, C), not normalised.
        num_samples: number of picks k, at most N.
        masked: (B, N) bool, True where a token stands for nothing: it counts as the mean of the
            others, so it is picked only when fewer than k distinct tokens are live.

    Returns:
        (B, k) int64 indices into the tokens, in the order of picking.
    """
    with torch.autocast(tokens.device.type, enabled=False):
        distances = _distances_with_mean(tokens.double(), masked)
    batch = torch.arange(tokens.shape[0], device=tokens.device)
    nearest = distances[:, 0]
    picks = []
    for _ in range(num_samples):
        pick = nearest.argmax(dim=1)
        picks.append(pick)
        nearest = torch.minimum(nearest, distances[batch, pick])
    # The mean itself (index 0) comes up again only where every point is picked already.
    return (torch.stack(picks, dim=1) - 1).clamp(min=0)


def _distances_with_mean(tokens: Tensor, masked: Tensor | None) -> Tensor:
    """(B, N+1, N+1) squared distances of [mean; tokens]; masked tokens lie exactly on the mean."""
    if masked is None:
        mean = tokens.mean(dim=1, keepdim=True)
    else:
        live = (~masked).to(tokens.dtype).unsqueeze(2)
        mean = (tokens * live).sum(dim=1, keepdim=True) / live.sum(dim=1, keepdim=True).clamp(min=1)
    # Centred, so that the expansion |a|^2 + |b|^2 - 2ab cancels as little as possible.
    points = tokens - mean
    if masked is not None:
        points = points.masked_fill(masked.unsqueeze(2), 0.0)
    points = torch.nn.functional.pad(points, (0, 0, 1, 0))
    squares = points.square().sum(dim=2)
    pairs = squares.unsqueeze(2) + squares.unsqueeze(1)
    return pairs.baddbmm_(points, points.transpose(1, 2), alpha=-2).clamp_(min=0)
