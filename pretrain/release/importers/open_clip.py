"""open_clip's state dict of a pair of plain transformers (mlfoundations/open_clip)."""

from collections.abc import Iterator

from torch import nn

from pretrain.models.dual import DualEncoder
from pretrain.models.image.vit import VisionTransformer
from pretrain.objectives.base import Objective
from pretrain.objectives.clip import ClipObjective
from pretrain.objectives.siglip import SiglipObjective
from pretrain.release.importers.keys import Key, layer, text_block_keys
from recaption.common.config import ConfigError


def open_clip_keys(model: DualEncoder, objective: Objective) -> Iterator[Key]:
    """All keys of open_clip's `CLIP` of the size of `model`; ours are those of a checkpoint.

    Raises:
        ConfigError: the model or its objective is not of that kind.
    """
    yield from plain_tower_keys(model, "open_clip")
    if not isinstance(objective, ClipObjective):
        raise ConfigError(
            "open_clip compares an image with a text by the product of one feature each: "
            "it wants objective.name=clip or siglip"
        )
    yield Key("logit_scale", ("objective.log_scale",), shape=())
    if isinstance(objective, SiglipObjective):
        yield Key("logit_bias", ("objective.bias",), shape=())
    yield Key("visual.proj", ("model.project_image.weight",), transposed=True)
    yield Key("text_projection", ("model.project_text.weight",), transposed=True)


def plain_tower_keys(model: DualEncoder, whose: str) -> Iterator[Key]:
    """Both towers, without their projections.

    Args:
        model: the pair.
        whose: names who wants them, in errors.

    Raises:
        ConfigError: the towers are of another kind.
    """
    encoder = model.image
    if not isinstance(encoder, VisionTransformer) or encoder.cls is None:
        raise ConfigError(f"{whose} wants model.image.name=vit with pool=cls")
    if encoder.patches.bias is not None:
        raise ConfigError(f"{whose} wants model.image.vit.patch_bias=false")
    if model.whole_text is not None:
        raise ConfigError(f"{whose} wants model.text.name=plain")
    image, part = "model.image", "model.part_text"
    width, patch = encoder.width, encoder.patch_size
    num_tokens = encoder.positions.shape[1]
    yield Key("visual.class_embedding", (f"{image}.cls",), shape=(width,))
    yield Key("visual.positional_embedding", (f"{image}.positions",), shape=(num_tokens, width))
    yield Key("visual.conv1.weight", (f"{image}.patches.weight",), shape=(width, 3, patch, patch))
    if not isinstance(encoder.pre_norm, nn.Identity):
        yield from layer("visual.ln_pre", f"{image}.pre_norm")
    for block in range(len(encoder.blocks)):
        prefix = f"visual.transformer.resblocks.{block}."
        yield from text_block_keys(prefix, f"{image}.blocks.{block}.")
    yield from layer("visual.ln_post", f"{image}.norm")
    yield Key("token_embedding.weight", (f"{part}.token_embedding.weight",))
    yield Key("positional_embedding", (f"{part}.positions",))
    for block in range(len(model.part_text.blocks)):
        prefix = f"transformer.resblocks.{block}."
        yield from text_block_keys(prefix, f"{part}.blocks.{block}.")
    yield from layer("ln_final", f"{part}.norm")
