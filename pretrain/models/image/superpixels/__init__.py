"""Choice of superpixels: by clustering, by the published network, or square cells."""

from dataclasses import dataclass, field

from pretrain.models.image.superpixels.base import GridSuperpixels, Superpixels, hard_labels
from pretrain.models.image.superpixels.slic import SlicConfig, SlicSuperpixels
from pretrain.models.image.superpixels.spixelfcn import CELL_SIZE, SpixelFcn, SpixelFcnConfig
from recaption.common.config import ConfigError, check_choice

__all__ = [
    "SlicConfig",
    "SpixelFcnConfig",
    "SuperpixelConfig",
    "Superpixels",
    "build_superpixels",
    "hard_labels",
    "load_published_weights",
]

_KEY = "model.image.hierarchical.superpixels"


@dataclass
class SuperpixelConfig:
    """Choice of superpixels."""

    # slic (no weights), spixelfcn (the published network) or grid (square cells)
    name: str = "slic"
    cell_size: int = 16  # side of a grid cell in pixels; there is one superpixel a cell
    slic: SlicConfig = field(default_factory=SlicConfig)
    spixelfcn: SpixelFcnConfig = field(default_factory=SpixelFcnConfig)

    def __post_init__(self) -> None:
        check_choice(f"{_KEY}.name", self.name, ("slic", "spixelfcn", "grid"))
        if self.name == "spixelfcn" and self.cell_size != CELL_SIZE:
            raise ConfigError(
                f"{_KEY}.cell_size={self.cell_size}: the cells of spixelfcn have a side of "
                f"{CELL_SIZE} pixels"
            )


def build_superpixels(config: SuperpixelConfig) -> Superpixels:
    """Builds what assigns pixels; a network has no weights yet, see `load_published_weights`."""
    if config.name == "slic":
        return SlicSuperpixels(config.cell_size, config.slic)
    if config.name == "spixelfcn":
        return SpixelFcn()
    return GridSuperpixels(config.cell_size)


def load_published_weights(superpixels: Superpixels, config: SuperpixelConfig) -> None:
    """Gives a network the weights that a training begins with; others need none.

    Raises:
        ConfigError: no file is named.
        UserError: the file is missing or of another network.
    """
    if not isinstance(superpixels, SpixelFcn):
        return
    if not config.spixelfcn.weights:
        raise ConfigError(
            f"{_KEY}.name=spixelfcn needs its weights: give {_KEY}.spixelfcn.weights=FILE, or "
            f"choose {_KEY}.name=slic, which has none"
        )
    superpixels.load_weights(config.spixelfcn.weights)
