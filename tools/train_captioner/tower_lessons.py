"""What the tower is taught: exact labels of every patch, from the scenes' masks."""

import torch
from torch import Tensor, nn

from tools.train_captioner.model import PATCH_SIZE, WIDTH
from tools.train_captioner.pool import ATTRIBUTES

#: Nothing, the thing itself, its first part, anything else of it.
NUM_ROLES = 4


class TowerLessons(nn.Module):
    """Reads from each patch's feature what the patch shows: see ``ScenePool``.

    The tower learns in minutes from exact labels of every patch what it would take hours to
    infer from captions alone. Only training knows these heads; they are not saved.
    """

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.num_cell_classes = (ATTRIBUTES["kind"], ATTRIBUTES["color"])
        self.cells = nn.Linear(WIDTH, 4 * sum(self.num_cell_classes))
        self.centers = nn.Linear(WIDTH, sum(ATTRIBUTES.values()))
        self.offsets = nn.Linear(WIDTH, 4 * 2)
        self.early_norm = nn.LayerNorm(WIDTH)
        self.roles = nn.Linear(WIDTH, NUM_ROLES * (PATCH_SIZE // 2) ** 2)

    def forward(
        self, early: Tensor, features: Tensor, cells: Tensor, centers: Tensor, roles: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Losses and accuracies.

        Args:
            early: (B, G * G, WIDTH), patches in the middle of the tower, which tell outlines.
            features: (B, G * G, WIDTH), the tower's patches without CLS.
            cells: (B, 2G, 2G, 2) classes of each patch's quarters.
            centers: (B, G, G, len(ATTRIBUTES)) attributes of things in whose patch the thing's
                middle lies.
            roles: (B, H / 2, H / 2) roles of every other pixel.
        """
        outlines = self.roles(self.early_norm(early)).float().view(-1, NUM_ROLES)
        features = self.norm(features)
        batch, num_patches, _ = features.shape
        targets = _quarters(cells.long()).reshape(-1, 2)
        logits = self.cells(features).float().view(batch * num_patches * 4, -1)
        losses: dict[str, Tensor] = {}
        pixels = roles.long().clamp(max=NUM_ROLES - 1)
        pixels = pixels.unflatten(1, (-1, PATCH_SIZE // 2)).unflatten(3, (-1, PATCH_SIZE // 2))
        pixels = pixels.transpose(2, 3).flatten()
        losses["roles"] = 3 * nn.functional.cross_entropy(outlines, pixels)
        for index, part in enumerate(logits.split(self.num_cell_classes, dim=-1)):
            name = f"cell_{('kind', 'color')[index]}"
            losses[name] = 2 * nn.functional.cross_entropy(part, targets[:, index])
        offsets, is_known = offsets_to_centers(cells, centers)
        predicted = self.offsets(features).float().view(batch, num_patches, 4, 2)
        errors = (predicted - _quarters(offsets)).abs()[_quarters(is_known[..., None])[..., 0]]
        losses["offset"] = errors.mean()
        center_targets = centers.long().view(-1, len(ATTRIBUTES))
        is_center = center_targets[:, 0] > 0
        logits = self.centers(features).float().view(batch * num_patches, -1)
        accuracies: dict[str, float] = {}
        parts = logits.split(list(ATTRIBUTES.values()), dim=-1)
        for index, (name, part) in enumerate(zip(ATTRIBUTES, parts, strict=True)):
            target = center_targets[:, index]
            # "kind" is asked of every patch, so that it also tells where things are.
            if name != "kind":
                part, target = part[is_center], target[is_center]
            loss = nn.functional.cross_entropy(part, target)
            losses[name] = 4 * loss if name == "kind" else 0.5 * loss
            correct = part.argmax(-1) == target
            seen = correct[target > 0]
            accuracies[f"{name}_right"] = seen.float().mean().item()
        return losses, accuracies


def offsets_to_centers(cells: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """How far each quarter is from the middle of the thing it shows.

    Which patches belong together is what the tower must find out before it can tell a shape.

    Returns:
        (B, 2G, 2G, 2) offsets down and to the right, in patches, and (B, 2G, 2G) bool: whether
        there is a thing and a patch that holds its middle.
    """
    batch, side = centers.shape[:2]
    # A scene never has two things of the same kind and colour, so the two name a thing.
    seen = (cells[..., 0].long() * 64 + cells[..., 1]).view(batch, -1, 1)
    middle = (centers[..., 0].long() * 64 + centers[..., 1]).view(batch, 1, -1)
    matches = (seen == middle) & (seen > 0)
    where = matches.to(torch.uint8).argmax(-1).view(batch, 2 * side, 2 * side)
    positions = (torch.arange(2 * side) - 0.5) / 2
    down = where // side - positions[:, None]
    right = where % side - positions
    return torch.stack([down, right], dim=-1), matches.any(-1).view(batch, 2 * side, 2 * side)


def _quarters(cells: Tensor) -> Tensor:
    """(B, 2G, 2G, C) -> (B, G * G, 4, C): the quarters of each patch side by side."""
    batch, double, _, channels = cells.shape
    side = double // 2
    cells = cells.view(batch, side, 2, side, 2, channels).permute(0, 1, 3, 2, 4, 5)
    return cells.reshape(batch, side * side, 4, channels)
