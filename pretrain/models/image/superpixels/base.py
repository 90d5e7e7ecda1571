"""What superpixels are: which of the 3x3 neighbouring cells of a grid each pixel belongs to.

Every kind returns the same 9-way assignment, in the order of the superpixel network that CAFT was
published with: (top-left, top, top-right, left, centre, right, bottom-left, bottom, bottom-right).
None is trained here, and none takes part in the gradients.
"""

import torch
from torch import Tensor, nn

#: Row and column of the nine neighbours, in the order of the assignment.
NEIGHBOURS = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1)]
CENTRE = 4


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
        assignment: (B, 9, H, W) shares or logits.
        cell_size: side of a cell in pixels.

    Returns:
        (B, H, W) int64, numbered row-major on the grid of cells.
    """
    return labels_of(assignment.max(dim=1).indices, cell_size)


def labels_of(winner: Tensor, cell_size: int) -> Tensor:
    """(B, H, W) which of the nine cells won a pixel -> (B, H, W) int64 number of that cell.

    A neighbour beyond the image is the cell at its edge.
    """
    height, width = winner.shape[1:]
    rows = torch.arange(height, device=winner.device).view(-1, 1) // cell_size
    columns = torch.arange(width, device=winner.device) // cell_size
    rows = (rows + winner // 3 - 1).clamp_(0, height // cell_size - 1)
    columns = (columns + winner % 3 - 1).clamp_(0, width // cell_size - 1)
    return rows * (width // cell_size) + columns


class GridSuperpixels(Superpixels):
    """Square cells: every pixel belongs to its own."""

    def assignment(self, images: Tensor) -> Tensor:
        shares = images.new_zeros(images.shape[0], 9, *images.shape[2:])
        shares[:, CENTRE] = 1
        return shares
