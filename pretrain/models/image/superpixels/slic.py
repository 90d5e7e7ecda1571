"""Superpixels by clustering pixels in colour and position; no weights."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pretrain.models.image.superpixels.base import NEIGHBOURS, Superpixels, labels_of
from recaption.common.config import ConfigError

#: Added to the squared distance of a neighbour that does not exist.
OUT_OF_REACH = 1e6


@dataclass
class SlicConfig:
    """Soft clustering in colour and position."""

    num_iterations: int = 3  # updates of the cell centres
    stride: int = 1  # pixels are averaged over squares of this side while the centres move
    # weight of position against colour: distance of one cell side counts as this much colour (in
    # standard deviations of the normalised image)
    compactness: float = 0.7
    sharpness: float = 10.0  # the assignment is a softmax of minus this times the squared distance


class SlicSuperpixels(Superpixels):
    """Soft k-means of pixels in colour and position, each pixel among its nine neighbouring cells.

    "SLIC Superpixels" (Achanta et al. 2012) with the soft assignment of "Superpixel Sampling
    Networks" (Jampani et al. 2018), without learned features. A fixed number of updates, each a
    product of small matrices, one a cell.
    """

    def __init__(self, cell_size: int, config: SlicConfig) -> None:
        super().__init__(cell_size)
        if cell_size % config.stride:
            raise ConfigError(
                f"superpixels.cell_size {cell_size} is not a multiple of slic.stride "
                f"{config.stride}"
            )
        self.config = config

    @torch.no_grad()
    def assignment(self, images: Tensor) -> Tensor:
        return _ungroup(self._logits(images).softmax(dim=3), self.cell_size)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        winner = self._logits(images).max(dim=3, keepdim=True).indices
        return labels_of(_ungroup(winner, self.cell_size).squeeze(1), self.cell_size)

    def _logits(self, images: Tensor) -> Tensor:
        """(B, rows, columns, 9, cell * cell): logits of each cell's pixels for the nine cells."""
        cell, stride = self.cell_size, self.config.stride
        with torch.autocast(images.device.type, enabled=False):
            images = images.float()
            small = F.avg_pool2d(images, stride) if stride > 1 else images
            points = self._points(small, cell // stride)
            centres = points.mean(dim=4)
            for _ in range(self.config.num_iterations):
                shares = (self._weights(centres) @ points).softmax(dim=3)
                centres = _updated(points, shares)
            return self._weights(centres) @ self._points(images, cell)

    def _points(self, images: Tensor, cell: int) -> Tensor:
        """Colour and scaled position of each pixel and a 1, grouped by cells of side `cell`.

        Returns:
            (B, rows, columns, 6, cell * cell).
        """
        batch, _, height, width = images.shape
        row, column = (
            # Centres of pixels, in cells.
            (torch.arange(side, device=images.device) + 0.5) * (self.config.compactness / cell)
            for side in (height, width)
        )
        position = torch.meshgrid(row, column, indexing="ij")
        constant = torch.stack([*position, torch.ones_like(position[0])])
        points = torch.cat([images, constant.expand(batch, -1, -1, -1)], dim=1)
        points = points.unflatten(3, (-1, cell)).unflatten(2, (-1, cell))
        return points.permute(0, 2, 4, 1, 3, 5).flatten(4)

    def _weights(self, centres: Tensor) -> Tensor:
        """What takes a point to its nine logits: (B, rows, columns, 9, 6).

        A logit is minus the scaled squared distance to a centre, 2 x c - |c|^2 after leaving out
        |x|^2, which all nine share. Neighbours beyond the image are out of reach.
        """
        around = _neighbours(centres)
        weights = 2 * around
        weights[..., 5] = -around[..., :5].square().sum(dim=4)
        weights[..., 5] -= OUT_OF_REACH * (around[..., 5] == 0)
        return weights.mul_(self.config.sharpness)


def _updated(points: Tensor, shares: Tensor) -> Tensor:
    """(B, rows, columns, 6): mean of the points that each cell holds, by their shares."""
    sums = _neighbours_back(shares @ points.transpose(3, 4))
    return sums / sums[..., 5:].clamp(min=1e-6)


def _neighbours(cells: Tensor) -> Tensor:
    """(B, rows, columns, C) -> (B, rows, columns, 9, C), zeros beyond the edges."""
    rows, columns = cells.shape[1:3]
    padded = F.pad(cells, (0, 0, 1, 1, 1, 1))
    shifted = [
        padded[:, 1 + down : 1 + down + rows, 1 + right : 1 + right + columns]
        for down, right in NEIGHBOURS
    ]
    return torch.stack(shifted, dim=3)


def _neighbours_back(values: Tensor) -> Tensor:
    """(B, rows, columns, 9, C) addressed to neighbours -> (B, rows, columns, C) sums received."""
    batch, rows, columns, _, channels = values.shape
    received = values.new_zeros(batch, rows + 2, columns + 2, channels)
    for neighbour, (down, right) in enumerate(NEIGHBOURS):
        target = received[:, 1 + down : 1 + down + rows, 1 + right : 1 + right + columns]
        target += values[:, :, :, neighbour]
    return received[:, 1:-1, 1:-1]


def _ungroup(values: Tensor, cell: int) -> Tensor:
    """(B, rows, columns, C, cell * cell) -> (B, C, rows * cell, columns * cell)."""
    batch, rows, columns, channels, _ = values.shape
    pixels = values.unflatten(4, (cell, cell)).permute(0, 3, 1, 4, 2, 5)
    return pixels.reshape(batch, channels, rows * cell, columns * cell)
