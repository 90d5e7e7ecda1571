"""From a configuration to an objective."""

from collections.abc import Callable
from dataclasses import dataclass, field

from pretrain.models.dual import DualEncoder
from pretrain.objectives.base import Objective
from pretrain.objectives.caft import CaftConfig, CaftObjective
from pretrain.objectives.clip import ClipConfig, ClipObjective
from pretrain.objectives.flair import FlairConfig, FlairObjective
from pretrain.objectives.siglip import SiglipConfig, SiglipObjective
from recaption.common.config import ConfigError, check_choice


@dataclass
class ObjectiveConfig:
    """Choice of the objective."""

    name: str = "caft"  # caft, flair, clip or siglip
    caft: CaftConfig = field(default_factory=CaftConfig)
    flair: FlairConfig = field(default_factory=FlairConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    siglip: SiglipConfig = field(default_factory=SiglipConfig)

    def __post_init__(self) -> None:
        check_choice("objective.name", self.name, OBJECTIVES)


#: Name -> what builds it for features of a width.
OBJECTIVES: dict[str, Callable[[ObjectiveConfig, int], Objective]] = {
    "caft": lambda config, embed_dim: CaftObjective(config.caft, embed_dim),
    "flair": lambda config, embed_dim: FlairObjective(config.flair, embed_dim),
    "clip": lambda config, _: ClipObjective(config.clip),
    "siglip": lambda config, _: SiglipObjective(config.siglip),
}


def build_objective(config: ObjectiveConfig, embed_dim: int) -> Objective:
    """Builds the objective for features of width `embed_dim`."""
    return OBJECTIVES[config.name](config, embed_dim)


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
