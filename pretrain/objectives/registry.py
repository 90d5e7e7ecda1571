"""From a configuration to an objective."""

from dataclasses import dataclass, field

from pretrain.models.dual import DualEncoder
from pretrain.objectives.base import Objective
from pretrain.objectives.caft import CaftConfig, CaftObjective
from pretrain.objectives.clip import ClipConfig, ClipObjective
from pretrain.objectives.siglip import SiglipConfig, SiglipObjective
from recaption.common.config import ConfigError


@dataclass
class ObjectiveConfig:
    """Choice of the objective."""

    name: str = "caft"  # caft, clip or siglip
    caft: CaftConfig = field(default_factory=CaftConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    siglip: SiglipConfig = field(default_factory=SiglipConfig)


def build_objective(config: ObjectiveConfig, embed_dim: int) -> Objective:
    """Builds the objective for features of width `embed_dim`.

    Raises:
        ConfigError: an unknown name.
    """
    if config.name == "caft":
        return CaftObjective(config.caft, embed_dim)
    if config.name == "clip":
        return ClipObjective(config.clip)
    if config.name == "siglip":
        return SiglipObjective(config.siglip)
    raise ConfigError(f"objective.name is {config.name!r}; choose caft, clip or siglip")


def check_features(objective: Objective, model: DualEncoder, num_texts_per_image: int) -> None:
    """Raises ConfigError where the model lacks what the objective needs, or texts go unused."""
    missing = [name for name in objective.needs if name not in model.offers]
    if missing:
        raise ConfigError(
            f"{type(objective).__name__} needs {', '.join(missing)}, which "
            f"{type(model.image).__name__} does not give; choose another model or objective"
        )
    sees_parts = model.whole_text is not None or "text.parts" in objective.needs
    if num_texts_per_image > 1 and not sees_parts:
        raise ConfigError(
            f"of {num_texts_per_image} texts an image {type(objective).__name__} would see the "
            "first only: set data.captions.name=whole, or choose model.text.name=part_whole"
        )
