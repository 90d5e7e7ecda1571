"""Where a token stands in the image: position tables, and how they fit images of another size."""

import torch
from torch import Tensor
from torch.nn import functional as F

from recaption.common.config import ConfigError


def sincos_positions(side: int, channels: int, table_side: int | None = None) -> Tensor:
    """Fixed 2-D sine-cosine positions (MoCo v3, MAE).

    The first half of the channels holds [sin(row w), cos(row w)], the second the same of the
    column, with w_k = 10000^(-4k/C).

    Args:
        side: cells along a side of the square image.
        channels: C, a multiple of 4.
        table_side: cells along a side of the images that the model was trained on, if it was
            others: cells of this image then stand at fractions of theirs.

    Returns:
        (side * side, channels) float32, row-major.
    """
    if channels % 4:
        raise ConfigError(
            f"sine-cosine positions need a width that is a multiple of 4, not {channels}"
        )
    frequencies = 10000.0 ** (-torch.arange(channels // 4, dtype=torch.float64) * 4 / channels)
    places = torch.arange(side, dtype=torch.float64)
    if table_side is not None and table_side != side:
        places = (places + 0.5) * table_side / side - 0.5
    rows, columns = places.repeat_interleave(side), places.repeat(side)
    angles = [place.unsqueeze(1) * frequencies for place in (rows, columns)]
    return torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1).float()


def resize_learned(positions: Tensor, side: int, num_leading: int) -> Tensor:
    """A learned table for a grid of `side` x `side` cells, by bicubic interpolation.

    Args:
        positions: (1, num_leading + cells, C); the cells of a square, row-major.
        side: cells along a side wanted.
        num_leading: rows in front of the cells (a class token's), which stay.

    Returns:
        (1, num_leading + side * side, C).
    """
    leading, cells = positions[:, :num_leading], positions[:, num_leading:]
    old = round(cells.shape[1] ** 0.5)
    if old == side:
        return positions
    grid = cells.unflatten(1, (old, old)).permute(0, 3, 1, 2)
    resized = F.interpolate(grid.float(), (side, side), mode="bicubic", align_corners=False)
    return torch.cat([leading, resized.flatten(2).transpose(1, 2).to(cells.dtype)], dim=1)
