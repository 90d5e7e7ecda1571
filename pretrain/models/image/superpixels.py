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
    stride: int = 1  # pixels are averaged over squares of this side while the centres move
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
        assignment: (B, 9, H, W) shares or logits; a neighbour beyond the image is the cell at
            its edge.
        cell_size: side of a cell in pixels.

    Returns:
        (B, H, W) int64, numbered row-major on the grid of cells.
    """
    winner = assignment.max(dim=1).indices
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
        if cell_size % config.stride:
            raise ConfigError(
                f"superpixels.cell_size {cell_size} is not a multiple of slic.stride "
                f"{config.stride}"
            )
        self.config = config

    def assignment(self, images: Tensor) -> Tensor:
        return self._closeness(images).softmax(dim=1)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        return hard_labels(self._closeness(images), self.cell_size)

    @torch.no_grad()
    def _closeness(self, images: Tensor) -> Tensor:
        """(B, 9, H, W): logits of the assignment."""
        cell, stride = self.cell_size, self.config.stride
        batch, _, height, width = images.shape
        with torch.autocast(images.device.type, enabled=False):
            images = images.float()
            small = F.avg_pool2d(images, stride) if stride > 1 else images
            points = self._points(small, cell // stride)
            centres = points.mean(dim=3)
            for _ in range(self.config.num_iterations):
                centres = self._updated(points, self._logits(points, centres).softmax(dim=3))
            logits = self._logits(self._points(images, cell), centres)
        # (B, rows, columns, 9, cell, cell) -> (B, 9, rows, cell, columns, cell)
        logits = logits.unflatten(4, (cell, cell)).permute(0, 3, 1, 4, 2, 5)
        return logits.reshape(batch, 9, height, width)

    def _points(self, images: Tensor, cell: int) -> Tensor:
        """Colour and scaled position of each pixel, grouped by cells of side `cell`.

        Returns:
            (B, rows, columns, cell * cell, 5).
        """
        batch, _, height, width = images.shape
        row, column = (
            # Centres of pixels, in cells.
            (torch.arange(side, device=images.device) + 0.5) * (self.config.compactness / cell)
            for side in (height, width)
        )
        positions = torch.stack(torch.meshgrid(row, column, indexing="ij"))
        points = torch.cat([images, positions.expand(batch, -1, -1, -1)], dim=1)
        points = points.unflatten(3, (-1, cell)).unflatten(2, (-1, cell))
        return points.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).contiguous()

    def _logits(self, points: Tensor, centres: Tensor) -> Tensor:
        """(B, rows, columns, 9, P): minus the scaled squared distance to each of nine centres.

        Without the square of the point itself, which all nine share. Neighbours beyond the image
        are infinitely far.
        """
        around = _neighbours(centres)
        inside = _neighbours(torch.ones_like(centres[:1, ..., :1]))
        logits = 2 * around @ points.transpose(3, 4) - around.square().sum(4, keepdim=True)
        return logits.mul_(self.config.sharpness).masked_fill_(inside == 0, -torch.inf)

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


def _neighbours(cells: Tensor) -> Tensor:
    """(B, rows, columns, C) -> (B, rows, columns, 9, C), zeros beyond the edges."""
    rows, columns = cells.shape[1:3]
    padded = F.pad(cells, (0, 0, 1, 1, 1, 1))
    shifted = [
        padded[:, 1 + down : 1 + down + rows, 1 + right : 1 + right + columns]
        for down, right in NEIGHBOURS
    ]
    return torch.stack(shifted, dim=3)


def build_superpixels(config: SuperpixelConfig) -> Superpixels:
    """Raises ConfigError for an unknown name."""
    if config.name == "slic":
        return SlicSuperpixels(config.cell_size, config.slic)
    if config.name == "grid":
        return GridSuperpixels(config.cell_size)
    raise ConfigError(f"superpixels.name is {config.name!r}; choose slic or grid")
