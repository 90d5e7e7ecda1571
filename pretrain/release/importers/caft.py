"""CAFT's published state dict (ByeongJuWoo/CAFT)."""

from collections.abc import Iterator

import torch
from torch import Tensor

from pretrain.models.dual import DualEncoder
from pretrain.models.image.hierarchical import HierarchicalEncoder
from pretrain.models.image.superpixels.spixelfcn import SpixelFcn
from pretrain.release.importers.keys import (
    Key,
    attention_pooling_keys,
    layer,
    same,
    text_block_keys,
)
from recaption.common.config import ConfigError

NUMBERS = {
    "logit_scale": "part_log_scale",
    "logit_bias": "part_bias",
    "logit_scale_coarse": "whole_log_scale",
    "logit_bias_coarse": "whole_bias",
}
PROJECTIONS = {
    "image_post": "project_fine_image",
    "image_post_coarse": "project_image",
    "text_post": "project_part_text",
    "text_post_coarse": "project_text",
}


def caft_keys(model: DualEncoder) -> Iterator[Key]:
    """All keys of the published CAFT of the size of `model`; ours are those of a checkpoint.

    Raises:
        ConfigError: the model is not of CAFT's kind, with the published superpixels.
    """
    encoder, whole = model.image, model.whole_text
    if not isinstance(encoder, HierarchicalEncoder) or whole is None:
        raise ConfigError("CAFT wants model.image.name=hierarchical, model.text.name=part_whole")
    if not isinstance(encoder.superpixels, SpixelFcn):
        raise ConfigError(
            "the published CAFT wants model.image.hierarchical.superpixels.name=spixelfcn"
        )
    for published, own in NUMBERS.items():
        yield Key(published, (f"objective.{own}",), shape=())
    for published, own in PROJECTIONS.items():
        yield Key(f"{published}.proj", (f"model.{own}.weight",), transposed=True)
    yield from attention_pooling_keys("visual_proj.", "objective.attention_pooling.")
    yield from _image_keys(encoder)
    yield from _part_text_keys(len(model.part_text.blocks))
    yield from _whole_text_keys(len(whole.blocks))


def caft_computed(model: DualEncoder) -> dict[str, Tensor]:
    """Published tensors that hold no knowledge: the position table, and that of the class token."""
    encoder = model.image
    assert isinstance(encoder, HierarchicalEncoder)
    return {
        "visual.pos_embed": encoder.positions.unsqueeze(0),
        "visual.pe_token": torch.zeros(1, 1, encoder.width),
    }


def _image_keys(encoder: HierarchicalEncoder) -> Iterator[Key]:
    image = "model.image"
    yield Key("visual.cls_token", (f"{image}.cls",))
    yield from same(
        "visual.patch_embed.proj.", f"{image}.stem.layers.", encoder.stem.layers.state_dict()
    )
    yield from same(
        "visual.superpixel_generator.", f"{image}.superpixels.", encoder.superpixels.state_dict()
    )
    depths = [len(list(stage.children())) for stage in encoder.stages]
    places = [(stage, place) for stage, depth in enumerate(depths) for place in range(depth)]
    for block, (stage, place) in enumerate(places):
        published, own = f"visual.blocks.{block}", f"{image}.stages.{stage}.{place}"
        yield from layer(f"{published}.attn.qkv", f"{own}.attention.qkv")
        yield from layer(f"{published}.attn.proj", f"{own}.attention.project")
        for name in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
            yield from layer(f"{published}.{name}", f"{own}.{name}")
    for level in range(len(encoder.poolings)):
        published, own = f"visual.pools.{level}.pool_block.", f"{image}.poolings.{level}."
        yield from graph_pooling_keys(published, own)
    for name in ("norm", "norm_fine"):
        yield from layer(f"visual.{name}", f"{image}.{name}")


def graph_pooling_keys(published: str, own: str) -> Iterator[Key]:
    """One graph pooling; prefixes end with a dot."""
    nodes = f"{published}centroid_fc."
    yield Key(f"{nodes}bias", (f"{own}bias",))
    yield from layer(f"{nodes}norm", f"{own}norm")
    yield from layer(f"{nodes}attn.qkv", f"{own}attention.qkv")
    yield from layer(f"{nodes}attn.proj", f"{own}attention.project")
    for name in ("fc1.0", "fc1.1", "fc2.0", "fc2.1"):
        yield from layer(f"{published}{name}", f"{own}{name}")


def _part_text_keys(num_blocks: int) -> Iterator[Key]:
    own = "model.part_text"
    yield Key("token_embedding.weight", (f"{own}.token_embedding.weight",))
    yield Key("positional_embedding", (f"{own}.positions",))
    for block in range(num_blocks):
        yield from text_block_keys(f"transformer.resblocks.{block}.", f"{own}.blocks.{block}.")
    yield from layer("ln_final", f"{own}.norm")


def _whole_text_keys(num_blocks: int) -> Iterator[Key]:
    published, own = "paragraph_encoder", "model.whole_text"
    yield Key(f"{published}.cls_embed", (f"{own}.cls",))
    yield Key(f"{published}.positional_embedding", (f"{own}.positions",))
    yield Key(f"{published}.adapter.ls.gamma", (f"{own}.adapter_scale",))
    yield from layer(f"{published}.adapter.mlp.c_fc", f"{own}.adapter.fc1")
    yield from layer(f"{published}.adapter.mlp.c_proj", f"{own}.adapter.fc2")
    for block in range(num_blocks):
        prefix = f"{published}.transformer.resblocks.{block}."
        yield from text_block_keys(prefix, f"{own}.blocks.{block}.")
    yield from layer(f"{published}.ln_final", f"{own}.norm")
