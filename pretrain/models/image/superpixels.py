"""Superpixels: which of the 3x3 neighbouring cells of a regular grid each pixel belongs to.

Every kind returns the same 9-way assignment, in the order of the superpixel network that CAFT was
published with: (top-left, top, top-right, left, centre, right, bottom-left, bottom, bottom-right).
None has weights to train, and none takes part in the gradients.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recaption.common.config import ConfigError

#: Row and column of the nine neighbours, in the order of the assignment.
NEIGHBOURS = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1)]
CENTRE = 4


@dataclass
class SlicConfig:
    """Soft clustering in colour and position."""

    num_iterations: int = 3  # updates of the cell centres
    # weight of position against colour: distance of one cell side counts as this much colour (in
    # standard deviations of the normalised image)
    compactness: float = 0.5
    sharpness: float = 10.0  # the assignment is a softmax of minus this times the squared distance


@dataclass
class SuperpixelConfig:
    """Choice of superpixels."""

    name: str = "slic"  # slic (no weights) or grid (square cells)
    cell_size: int = 16  # side of a grid cell in pixels; there is one superpixel a cell
    slic: SlicConfig = field(default_factory=SlicConfig)


class Superpixels(nn.Module):
    """Assigns pixels to the cells around them.

    Args:
        cell_size: side of a cell in pixels; image sides must be multiples of it.
    """

    def __init__(self, cell_size: int) -> None:
        super().__init__()
        self.cell_size = cell_size

    def assignment(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised images -> (B, 9, H, W) shares of the nine cells, sum to 1."""
        raise NotImplementedError

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised images -> (B, H, W) int64 superpixel of each pixel, row-major."""
        return hard_labels(self.assignment(images), self.cell_size)


def hard_labels(assignment: Tensor, cell_size: int) -> Tensor:
    """The likeliest superpixel of each pixel.

    Args:
        assignment: (B, 9, H, W) shares; a neighbour outside the image is the cell at its edge.
        cell_size: side of a cell in pixels.

    Returns:
        (B, H, W) int64, numbered row-major on the grid of cells.
    """
    winner = assignment.argmax(dim=1)
    return _neighbour_table(winner.shape[1], winner.shape[2], cell_size, winner.device)[
        winner,
        torch.arange(winner.shape[1], device=winner.device).view(-1, 1),
        torch.arange(winner.shape[2], device=winner.device),
    ]


def _neighbour_table(height: int, width: int, cell_size: int, device: torch.device) -> Tensor:
    """(9, H, W): number of each pixel's nine neighbouring cells, clamped at the edges."""
    rows, columns = height // cell_size, width // cell_size
    row = torch.arange(height, device=device) // cell_size
    column = torch.arange(width, device=device) // cell_size
    return torch.stack(
        [
            (row + down).clamp(0, rows - 1).unsqueeze(1) * columns
            + (column + right).clamp(0, columns - 1)
            for down, right in NEIGHBOURS
        ]
    )


class GridSuperpixels(Superpixels):
    """Square cells: every pixel belongs to its own."""

    def assignment(self, images: Tensor) -> Tensor:
        shares = images.new_zeros(images.shape[0], 9, *images.shape[2:])
        shares[:, CENTRE] = 1
        return shares


class SlicSuperpixels(Superpixels):
    """Soft k-means of pixels in colour and position, each pixel among its nine neighbouring cells.

    "SLIC Superpixels" (Achanta et al. 2012) with the soft assignment of "Superpixel Sampling
    Networks" (Jampani et al. 2018), without learned features. A fixed number of updates, each a
    product of small matrices, one a cell.
    """

    def __init__(self, cell_size: int, config: SlicConfig) -> None:
        super().__init__(cell_size)
        self.config = config

    @torch.no_grad()
    def assignment(self, images: Tensor) -> Tensor:
        cell = self.cell_size
        batch, _, height, width = images.shape
        rows, columns = height // cell, width // cell
        with torch.autocast(images.device.type, enabled=False):
            points = self._points(images.float())  # (B, rows, columns, P, 5), P pixels a cell
            outside = self._outside(rows, columns, images.device)
            centres = points.mean(dim=3)
            for _ in range(self.config.num_iterations):
                shares = self._shares(points, centres, outside)
                centres = self._updated(points, shares)
            shares = self._shares(points, centres, outside)
        # (B, rows, columns, 9, cell, cell) -> (B, 9, rows, cell, columns, cell)
        shares = shares.unflatten(4, (cell, cell)).permute(0, 3, 1, 4, 2, 5)
        return shares.reshape(batch, 9, height, width)

    def _points(self, images: Tensor) -> Tensor:
        """Colour and scaled position of each pixel, grouped by cell: (B, rows, columns, P, 5)."""
        cell = self.cell_size
        batch, _, height, width = images.shape
        scale = self.config.compactness / cell
        row = torch.arange(height, device=images.device, dtype=images.dtype).mul(scale).view(-1, 1)
        column = torch.arange(width, device=images.device, dtype=images.dtype).mul(scale)
        positions = torch.stack([row.expand(height, width), column.expand(height, width)])
        points = torch.cat([images, positions.expand(batch, -1, -1, -1)], dim=1)
        points = points.unflatten(3, (-1, cell)).unflatten(2, (-1, cell))
        return points.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).contiguous()

    @staticmethod
    def _outside(rows: int, columns: int, device: torch.device) -> Tensor:
        """(rows, columns, 9, 1) bool: neighbours that lie beyond the image."""
        inside = F.pad(torch.ones(1, rows, columns, 1, 1, device=device), (0, 0, 0, 0, 1, 1, 1, 1))
        return _gather_neighbours(inside)[0, ..., 0, :] == 0

    def _shares(self, points: Tensor, centres: Tensor, outside: Tensor) -> Tensor:
        """(B, rows, columns, 9, P): softmax over nine centres of minus the scaled distance."""
        padded = F.pad(centres.unsqueeze(3), (0, 0, 0, 0, 1, 1, 1, 1))
        around = _gather_neighbours(padded).squeeze(4)  # (B, rows, columns, 9, 5)
        # |x - c|^2 without |x|^2, which all nine share.
        closeness = 2 * around @ points.transpose(3, 4) - around.square().sum(4, keepdim=True)
        closeness.mul_(self.config.sharpness).masked_fill_(outside, -torch.inf)
        return closeness.softmax(dim=3)

    @staticmethod
    def _updated(points: Tensor, shares: Tensor) -> Tensor:
        """(B, rows, columns, 5): mean of the points that each cell holds, by shares."""
        ones = torch.ones_like(points[..., :1])
        sums = shares @ torch.cat([points, ones], dim=4)  # (B, rows, columns, 9, 6)
        batch, rows, columns, _, channels = sums.shape
        total = sums.new_zeros(batch, rows + 2, columns + 2, channels)
        for neighbour, (down, right) in enumerate(NEIGHBOURS):
            total[:, 1 + down : 1 + down + rows, 1 + right : 1 + right + columns] += sums[
                :, :, :, neighbour
            ]
        total = total[:, 1:-1, 1:-1]
        return total[..., :-1] / total[..., -1:].clamp(min=1e-6)


def _gather_neighbours(padded: Tensor) -> Tensor:
    """(B, rows+2, columns+2, 1, C) padded by one -> (B, rows, columns, 9, 1, C)."""
    rows, columns = padded.shape[1] - 2, padded.shape[2] - 2
    return torch.stack(
        [
            padded[:, 1 + down : 1 + down + rows, 1 + right : 1 + right + columns]
            for down, right in NEIGHBOURS
        ],
        dim=3,
    )


def build_superpixels(config: SuperpixelConfig) -> Superpixels:
    """Raises ConfigError for an unknown name."""
    if config.name == "slic":
        return SlicSuperpixels(config.cell_size, config.slic)
    if config.name == "grid":
        return GridSuperpixels(config.cell_size)
    raise ConfigError(f"superpixels.name is {config.name!r}; choose slic or grid")
