"""From a configuration to a model."""

from dataclasses import dataclass, field

from pretrain.models.dual import DualEncoder
from pretrain.models.image.hierarchical import HierarchicalConfig, HierarchicalEncoder
from pretrain.models.image.superpixels import load_published_weights
from pretrain.models.image.vit import VisionTransformer, VitConfig
from pretrain.models.text.part import PartTextConfig, PartTextEncoder
from pretrain.models.text.whole import WholeTextConfig, WholeTextEncoder
from recaption.common.config import check_at_least, check_choice


@dataclass
class ImageConfig:
    """Choice of the image encoder."""

    name: str = "hierarchical"  # hierarchical (CAFT) or vit
    size: int = 224  # side of the images in pixels
    hierarchical: HierarchicalConfig = field(default_factory=HierarchicalConfig)
    vit: VitConfig = field(default_factory=VitConfig)

    def __post_init__(self) -> None:
        check_choice("model.image.name", self.name, ("hierarchical", "vit"))
        check_at_least(1, {"model.image.size": self.size})


@dataclass
class TextConfig:
    """Choice of the text encoder."""

    # part_whole (CAFT: texts, and the caption from its first parts) or plain (one text, one
    # feature)
    name: str = "part_whole"
    part: PartTextConfig = field(default_factory=PartTextConfig)
    whole: WholeTextConfig = field(default_factory=WholeTextConfig)

    def __post_init__(self) -> None:
        check_choice("model.text.name", self.name, ("part_whole", "plain"))


@dataclass
class ModelConfig:
    """A pair of encoders; the defaults are CAFT-B as published."""

    embed_dim: int = 512  # joint width of image and text features, a multiple of 8
    image: ImageConfig = field(default_factory=ImageConfig)
    text: TextConfig = field(default_factory=TextConfig)


def build_model(config: ModelConfig) -> DualEncoder:
    """Builds the pair with fresh weights, drawn from torch's default generator.

    Raises:
        ConfigError: sizes that do not go together.
    """
    image: HierarchicalEncoder | VisionTransformer
    if config.image.name == "hierarchical":
        image = HierarchicalEncoder(config.image.hierarchical, config.image.size)
    else:
        image = VisionTransformer(config.image.vit, config.image.size)
    part = PartTextEncoder(config.text.part)
    whole = None
    if config.text.name == "part_whole":
        whole = WholeTextEncoder(config.text.whole, config.text.part.width)
    return DualEncoder(image, part, whole, config.embed_dim)


def load_frozen_weights(model: DualEncoder, config: ModelConfig) -> None:
    """Loads what a training begins with and does not train: the superpixel network, if any.

    Raises:
        UserError: a file is not named, missing, or of another network.
    """
    if isinstance(model.image, HierarchicalEncoder):
        load_published_weights(model.image.superpixels, config.image.hierarchical.superpixels)
