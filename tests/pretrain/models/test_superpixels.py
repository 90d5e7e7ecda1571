import pytest
import torch

from pretrain.models.image.superpixels import (
    SlicConfig,
    SuperpixelConfig,
    build_superpixels,
    hard_labels,
)
from recaption.common.config import ConfigError


def scene():
    """A red disc on a blue ground: (1, 3, 64, 64), and which pixels are disc."""
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    disc = (rows - 29) ** 2 + (columns - 34) ** 2 < 17**2
    colours = torch.tensor([[-1.0, -0.5, 1.2], [1.5, -0.8, -0.6]])
    image = colours[disc.long()].permute(2, 0, 1).unsqueeze(0)
    return image + 0.1 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0)), disc


def impurity(labels, disc):
    """Share of pixels that their superpixel's majority gets wrong."""
    wrong = 0
    for label in labels.unique():
        members = disc[labels == label]
        wrong += min(members.sum().item(), (~members).sum().item())
    return wrong / disc.numel()


def slic(cell_size=8, **options):
    return build_superpixels(SuperpixelConfig("slic", cell_size, SlicConfig(**options)))


@pytest.mark.parametrize("name", ["slic", "grid"])
def test_nine_way_assignment(name):
    image, _ = scene()
    superpixels = build_superpixels(SuperpixelConfig(name, 8))
    assignment = superpixels.assignment(image)
    assert assignment.shape == (1, 9, 64, 64)
    torch.testing.assert_close(assignment.sum(1), torch.ones(1, 64, 64))
    labels = superpixels(image)
    assert torch.equal(labels, hard_labels(assignment, 8))
    assert labels.dtype == torch.int64
    # A pixel stays within one cell of its own.
    cell = torch.arange(64) // 8
    assert ((labels // 8 - cell.view(64, 1)).abs() <= 1).all()
    assert ((labels % 8 - cell).abs() <= 1).all()


def test_grid_is_the_grid():
    cell = torch.arange(32) // 16
    labels = build_superpixels(SuperpixelConfig("grid", 16))(torch.zeros(2, 3, 32, 32))
    assert torch.equal(labels, (cell.view(32, 1) * 2 + cell).expand(2, -1, -1))


@pytest.mark.parametrize("stride", [1, 2])
def test_slic_follows_edges(stride):
    image, disc = scene()
    grid = build_superpixels(SuperpixelConfig("grid", 8))(image)[0]
    assert impurity(slic(stride=stride)(image)[0], disc) < 0.25 * impurity(grid, disc)


def test_slic_of_a_flat_image_is_the_grid():
    grid = build_superpixels(SuperpixelConfig("grid", 8))(torch.zeros(1, 3, 64, 64))
    flat = slic()(torch.full((1, 3, 64, 64), 0.3))
    assert (flat == grid).float().mean() > 0.95


def test_slic_gives_most_cells_pixels():
    image, _ = scene()
    assert len(slic()(image).unique()) > 60


def test_errors_of_the_user():
    with pytest.raises(ConfigError, match=r"superpixels\.name is 'voronoi'"):
        build_superpixels(SuperpixelConfig("voronoi"))
    with pytest.raises(ConfigError, match=r"not a multiple of slic\.stride 3"):
        slic(stride=3)
