"""FLAIR's published state dict (ExplainableML/flair)."""

from collections.abc import Iterator

from torch import nn

from pretrain.models.dual import DualEncoder
from pretrain.models.image.vit import VisionTransformer
from pretrain.release.importers.keys import Key, attention_pooling_keys, layer, text_block_keys
from recaption.common.config import ConfigError


def flair_keys(model: DualEncoder) -> Iterator[Key]:
    """All keys of the published FLAIR of the size of `model`; ours are those of a checkpoint.

    Raises:
        ConfigError: the model is not of FLAIR's kind.
    """
    encoder = model.image
    if not isinstance(encoder, VisionTransformer) or encoder.cls is None:
        raise ConfigError("FLAIR wants model.image.name=vit with pool=cls")
    if encoder.patches.bias is not None or isinstance(encoder.pre_norm, nn.Identity):
        raise ConfigError("FLAIR wants model.image.vit.pre_norm=true and patch_bias=false")
    if model.whole_text is not None:
        raise ConfigError("FLAIR wants model.text.name=plain")
    for published, own in (("logit_scale", "log_scale"), ("logit_bias", "bias")):
        yield Key(published, (f"objective.{own}",), shape=())
    yield from attention_pooling_keys("visual_proj.", "objective.attention_pooling.")
    for side in ("image", "text"):
        yield Key(f"{side}_post.proj", (f"model.project_{side}.weight",), transposed=True)
    image, part = "model.image", "model.part_text"
    width, patch = encoder.width, encoder.patch_size
    num_tokens = encoder.positions.shape[1]
    yield Key("visual.class_embedding", (f"{image}.cls",), shape=(width,))
    yield Key("visual.positional_embedding", (f"{image}.positions",), shape=(num_tokens, width))
    yield Key("visual.conv1.weight", (f"{image}.patches.weight",), shape=(width, 3, patch, patch))
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
