"""CAFT's fine-to-coarse image encoder: superpixels, then ever fewer and larger segments."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from pretrain.models.blocks import Block, Blocks, init_image_weights
from pretrain.models.features import ImageFeatures, SegmentHierarchy
from pretrain.models.image.positions import sincos_positions
from pretrain.models.image.stem import ConvStem, StemConfig
from pretrain.models.image.superpixels import SuperpixelConfig, build_superpixels
from pretrain.ops.graph_pooling import GraphPooling
from pretrain.ops.segment_mean import nearest_live, segment_centroids, segment_means
from recaption.common.config import ConfigError, check_choice

NORM_EPS = 1e-6


@dataclass
class HierarchicalConfig:
    """CAFT's image encoder; the defaults are the published base size."""

    width: int = 768  # channels, a multiple of 4 and of the heads
    num_heads: int = 12  # heads of the blocks
    # blocks of each stage; a graph pooling stands between each two
    depths: list[int] = field(default_factory=lambda: [3, 3, 3, 2])
    # tokens after each pooling; the first number is that of the fine tokens
    num_clusters: list[int] = field(default_factory=lambda: [64, 32, 16])
    pooling_heads: int = 12  # heads of the attention in graph pooling
    pooling_dropout: float = 0.1  # on the hidden features in graph pooling
    pool: str = "cls"  # image features: cls (as published) or mean of the tokens (learns sooner)
    # Amplitude of the sine-cosine positions that are added to the stem's features; 1 as published.
    # What all images share slows the start of a short training, and positions are most of that.
    position_scale: float = 1.0
    # Side of the images that the positions are laid out for, in pixels; in images of another size
    # cells stand at fractions of them. 0: the images' own.
    position_size: int = 0
    mlp_ratio: float = 4.0  # hidden width of the blocks' MLPs, in widths
    stem: StemConfig = field(default_factory=StemConfig)
    superpixels: SuperpixelConfig = field(default_factory=SuperpixelConfig)

    def __post_init__(self) -> None:
        check_choice("model.image.hierarchical.pool", self.pool, ("cls", "mean"))
        if min(self.depths, default=1) < 1:
            raise ConfigError(f"depths {self.depths}: each stage needs a block")
        if len(self.depths) != len(self.num_clusters) + 1 or len(self.depths) < 2:
            raise ConfigError(
                f"depths {self.depths} and num_clusters {self.num_clusters} do not go together: "
                "there is one pooling between each two stages, and at least one"
            )
        if sorted(self.num_clusters, reverse=True) != self.num_clusters:
            raise ConfigError(f"num_clusters {self.num_clusters}: a pooling cannot add tokens")


class HierarchicalEncoder(nn.Module):
    """Image encoder of CAFT (arXiv 2602.02977) on the hierarchy of CAST.

    Tokens start as means of stem features over superpixels. Between the stages, graph pooling
    merges them. The fine output is that of the second stage, the coarse one that of the last.

    Args:
        config: sizes.
        image_size: side of the square images in pixels.

    Raises:
        ConfigError: the image does not divide into stem cells and superpixel cells.
    """

    #: What the encoder gives, as fields of `ImageFeatures`.
    offers = ("pooled", "tokens", "fine_pooled", "fine_tokens")

    positions: Tensor

    def __init__(self, config: HierarchicalConfig, image_size: int) -> None:
        super().__init__()
        cell_size = config.superpixels.cell_size
        for name, side in (("superpixels.cell_size", cell_size), ("stem", config.stem.stride)):
            for size in (image_size, config.position_size):
                if size % side:
                    raise ConfigError(f"image size {size} is not a multiple of {name} ({side} px)")
        self.width = config.width
        self.stride = config.stem.stride
        self.pool = config.pool
        self.num_superpixels = (image_size // cell_size) ** 2
        if self.num_superpixels < config.num_clusters[0]:
            raise ConfigError(
                f"{self.num_superpixels} superpixels cannot be pooled to {config.num_clusters[0]} "
                "tokens; use smaller cells or fewer clusters"
            )
        side = image_size // self.stride
        self.stem = ConvStem(config.stem, config.width)
        self.superpixels = build_superpixels(config.superpixels)
        table_side = (config.position_size or image_size) // self.stride
        positions = config.position_scale * sincos_positions(side, config.width, table_side)
        self.register_buffer("positions", positions, persistent=False)
        self.cls = nn.Parameter(torch.empty(1, 1, config.width))
        self.stages = nn.ModuleList(
            Blocks(
                *(
                    Block(config.width, config.num_heads, config.mlp_ratio, NORM_EPS)
                    for _ in range(depth)
                )
            )
            for depth in config.depths
        )
        self.poolings = nn.ModuleList(
            GraphPooling(config.width, k, config.pooling_heads, config.pooling_dropout)
            for k in config.num_clusters
        )
        self.norm_fine = nn.LayerNorm(config.width, eps=NORM_EPS)
        self.norm = nn.LayerNorm(config.width, eps=NORM_EPS)
        init_image_weights(self)
        nn.init.trunc_normal_(self.cls, std=0.02)

    def forward(
        self,
        images: Tensor,
        with_hierarchy: bool = False,
        labels: Tensor | None = None,
        with_tokens: bool = True,
        stem_features: Tensor | None = None,
    ) -> ImageFeatures:
        """Encodes images.

        Args:
            images: (B, 3, H, W), normalised.
            with_hierarchy: return the segments of every level too.
            labels: (B, H, W) superpixel of each pixel, instead of computing them.
            with_tokens: return the coarse tokens too. The training of CAFT has no use for them.
            stem_features: (B, h, w, channels) as `stem_features` gives them, instead of computing
                them. With those of a whole batch, its pieces are encoded as the whole would be.

        Returns:
            Features of the encoder's own width.
        """
        if labels is None:
            labels = self.superpixels(images)
        if stem_features is None:
            stem_features = self.stem_features(images)
        tokens, dead = self.segment_tokens(stem_features, labels)
        cls = self.cls.expand(len(images), -1, -1)
        masked: Tensor | None = dead
        assignments = []
        fine = None
        for level, stage in enumerate(self.stages):
            is_last = level == len(self.poolings)
            only_cls = is_last and level > 1 and self.pool == "cls" and not with_tokens
            sequence = stage(torch.cat([cls, tokens], dim=1), only_first=only_cls)
            if level == 1:
                fine = self.norm_fine(sequence)
            cls, tokens = sequence[:, :1], sequence[:, 1:]
            if not is_last:
                cls, tokens, logits = self.poolings[level](cls, tokens, masked)
                assignments.append(logits)
                masked = None
        assert fine is not None
        coarse = self.norm(torch.cat([cls, tokens], dim=1))
        hierarchy = None
        if with_hierarchy:
            hierarchy = SegmentHierarchy(labels, [logits.softmax(dim=2) for logits in assignments])
        tokens, fine_tokens = coarse[:, 1:], fine[:, 1:]
        if self.pool == "mean":
            pooled, fine_pooled = tokens.mean(dim=1), fine_tokens.mean(dim=1)
        else:
            pooled, fine_pooled = coarse[:, 0], fine[:, 0]
        coarse_tokens = tokens if with_tokens else None
        return ImageFeatures(pooled, coarse_tokens, fine_pooled, fine_tokens, hierarchy)

    def stem_features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) images -> (B, h, w, channels): all that depends on the other samples."""
        features: Tensor = self.stem(images)
        return features

    def fit_positions(self, state: dict[str, Tensor], prefix: str) -> None:
        """Positions are computed, `position_size` says for what: there is nothing to do."""

    def segment_tokens(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """One token a superpixel: the mean of stem feature and position over its stem cells.

        The stem's last layer is linear, so that it is applied to the means: there are fewer.
        A superpixel that owns no stem cell takes the token of the nearest one that does, by the
        distance of their centroids.

        Args:
            features: (B, h, w, channels) of the stem, not projected.
            labels: (B, H, W) superpixel of each pixel. A stem cell belongs to that of its top-left
                pixel, as published.

        Returns:
            (B, S, C) tokens; (B, S) bool, True for superpixels without a stem cell.
        """
        of_cells = labels[:, :: self.stride, :: self.stride].flatten(1)
        positions = self.positions.expand(len(features), -1, -1)
        (means, places), dead = segment_means(
            (features.flatten(1, 2), positions), of_cells, self.num_superpixels
        )
        tokens = self.stem.project(means) + places
        source = nearest_live(segment_centroids(labels, self.num_superpixels), dead)
        return tokens.gather(1, source.unsqueeze(2).expand_as(tokens)), dead
