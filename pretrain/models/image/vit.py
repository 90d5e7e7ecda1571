"""Plain vision transformer."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pretrain.models.blocks import ACTIVATIONS, Block, Blocks, init_image_weights
from pretrain.models.features import ImageFeatures
from pretrain.models.image.positions import resize_learned, sincos_positions
from pretrain.ops.linear import Linear
from recaption.common.config import ConfigError, check_at_least, check_choice


@dataclass
class VitConfig:
    """ViT; the defaults are B/16."""

    width: int = 768  # channels
    num_heads: int = 12  # heads
    depth: int = 12  # blocks
    patch_size: int = 16  # side of a patch in pixels
    mlp_ratio: float = 4.0  # hidden width of the blocks' MLPs, in widths
    pool: str = "cls"  # the image's feature: cls (class token) or mean (of the patch tokens)
    # As CLIP's towers have it: a LayerNorm before the blocks, and patches projected without a bias.
    pre_norm: bool = False
    patch_bias: bool = True
    norm_eps: float = 1e-6  # of the LayerNorms; 1e-5 in CLIP's towers
    activation: str = "gelu"  # of the blocks' MLPs: gelu, or quick_gelu (OpenAI's CLIP)

    def __post_init__(self) -> None:
        check_choice("model.image.vit.pool", self.pool, ("cls", "mean"))
        check_choice("model.image.vit.activation", self.activation, ACTIVATIONS)
        check_at_least(1, {"model.image.vit.depth": self.depth})


class VisionTransformer(nn.Module):
    """ "An Image is Worth 16x16 Words", with learned positions.

    Args:
        config: sizes.
        image_size: side of the square images in pixels.

    Raises:
        ConfigError: the image does not divide into patches.
    """

    offers = ("pooled", "tokens")

    def __init__(self, config: VitConfig, image_size: int) -> None:
        super().__init__()
        if image_size % config.patch_size:
            raise ConfigError(
                f"image size {image_size} is not a multiple of vit.patch_size {config.patch_size}"
            )
        side = image_size // config.patch_size
        self.width = config.width
        self.patch_size = config.patch_size
        self.patches = Linear(3 * config.patch_size**2, config.width, bias=config.patch_bias)
        self.cls: nn.Parameter | None = None
        if config.pool == "cls":
            self.cls = nn.Parameter(torch.empty(1, 1, config.width))
        num_tokens = side**2 + (self.cls is not None)
        self.positions = nn.Parameter(torch.zeros(1, num_tokens, config.width))
        self.pre_norm = (
            nn.LayerNorm(config.width, eps=config.norm_eps) if config.pre_norm else nn.Identity()
        )
        self.blocks = Blocks(
            *(
                Block(
                    config.width,
                    config.num_heads,
                    config.mlp_ratio,
                    config.norm_eps,
                    config.activation,
                )
                for _ in range(config.depth)
            )
        )
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        init_image_weights(self)
        if self.cls is not None:
            nn.init.trunc_normal_(self.cls, std=0.02)
        # Learned, but the start already knows what lies next to what: matters in short trainings.
        with torch.no_grad():
            self.positions[:, -(side**2) :] = sincos_positions(side, config.width)

    def fit_positions(self, state: dict[str, Tensor], prefix: str) -> None:
        """Interpolates the learned positions of a state dict, made for images of another size."""
        num_leading = int(self.cls is not None)
        side = round((self.positions.shape[1] - num_leading) ** 0.5)
        key = f"{prefix}positions"
        state[key] = resize_learned(state[key], side, num_leading)

    def stem_features(self, images: Tensor) -> None:
        """There are none: no sample's features depend on the other samples."""

    def forward(
        self,
        images: Tensor,
        with_hierarchy: bool = False,
        with_tokens: bool = True,
        stem_features: None = None,
    ) -> ImageFeatures:
        """(B, 3, H, W) normalised images -> features of the encoder's own width.

        There is no hierarchy to return: tokens are the square grid of patches, row-major. Where
        nobody asks for them, the last block computes the class token alone.
        """
        patch = self.patch_size
        cells = images.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))
        cells = cells.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        tokens = self.patches(cells)
        if self.cls is not None:
            tokens = torch.cat([self.cls.expand(len(images), -1, -1), tokens], dim=1)
        tokens = self.pre_norm(tokens + self.positions)
        only_cls = self.cls is not None and not with_tokens
        tokens = self.norm(self.blocks(tokens, only_first=only_cls))
        if self.cls is None:
            return ImageFeatures(tokens.mean(dim=1), tokens if with_tokens else None)
        return ImageFeatures(tokens[:, 0], tokens[:, 1:] if with_tokens else None)
