"""The tiny models of the stored cases, with published parameters in them."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pretrain.data.tokens import PackedTexts
from pretrain.models.image.hierarchical import HierarchicalConfig
from pretrain.models.image.stem import StemConfig
from pretrain.models.image.superpixels import SuperpixelConfig
from pretrain.models.image.vit import VitConfig
from pretrain.models.registry import ImageConfig, ModelConfig, TextConfig, build_model
from pretrain.models.text.part import PartTextConfig
from pretrain.models.text.whole import WholeTextConfig
from pretrain.objectives.registry import ObjectiveConfig, build_objective
from pretrain.release.importers.keys import Key, rename

PART_TEXT = PartTextConfig(width=48, num_layers=2, num_heads=4, context_length=16, vocab_size=512)
CAFT = ModelConfig(
    embed_dim=32,
    image=ImageConfig(
        hierarchical=HierarchicalConfig(
            width=48,
            num_heads=4,
            depths=[1, 1, 1, 1],
            num_clusters=[8, 6, 4],
            stem=StemConfig(channels=[6, 12, 24, 48], strides=[2, 2, 2, 1]),
            superpixels=SuperpixelConfig("spixelfcn"),
        )
    ),
    text=TextConfig(part=PART_TEXT, whole=WholeTextConfig(num_layers=2, num_heads=4)),
)
FLAIR = ModelConfig(
    embed_dim=32,
    image=ImageConfig(
        name="vit",
        size=64,
        vit=VitConfig(
            width=48,
            num_heads=4,
            depth=2,
            patch_size=16,
            pre_norm=True,
            patch_bias=False,
            norm_eps=1e-5,
        ),
    ),
    text=TextConfig(name="plain", part=PART_TEXT),
)


def build_pair(model: ModelConfig, objective: str) -> nn.ModuleDict:
    """Model and objective with fresh weights, named as in a checkpoint."""
    return nn.ModuleDict(
        {
            "model": build_model(model),
            "objective": build_objective(ObjectiveConfig(objective), model.embed_dim),
        }
    )


def some(published: dict[str, Tensor], keys: Iterable[Key], prefix: str = "") -> dict[str, Tensor]:
    """Those of the keys that are there, under our names without `prefix`."""
    renamed = rename(published, (key for key in keys if key.published in published))
    return {name.removeprefix(prefix): tensor for name, tensor in renamed.items()}


def packed(text: Tensor) -> PackedTexts:
    """(B, K, context) padded with 0, the end being the largest token -> packed."""
    rows = [row[: int(row.argmax()) + 1] for row in text.flatten(0, 1)]
    lengths = torch.tensor([0, *map(len, rows)])
    return PackedTexts(torch.cat(rows), lengths.cumsum(0), text.shape[1])


def published_draw(offsets: Tensor) -> Tensor:
    """(B, B-1) drawn texts of the other images -> (B, B), the diagonal unused."""
    batch = len(offsets)
    drawn = torch.zeros(batch, batch, dtype=torch.int64)
    drawn[~torch.eye(batch, dtype=torch.bool)] = offsets.flatten()
    return drawn
