"""FLAIR's published state dict (ExplainableML/flair)."""

from collections.abc import Iterator

from torch import nn

from pretrain.models.dual import DualEncoder
from pretrain.models.image.vit import VisionTransformer
from pretrain.release.importers.keys import Key, attention_pooling_keys
from pretrain.release.importers.open_clip import plain_tower_keys
from recaption.common.config import ConfigError


def flair_keys(model: DualEncoder) -> Iterator[Key]:
    """All keys of the published FLAIR of the size of `model`; ours are those of a checkpoint.

    Raises:
        ConfigError: the model is not of FLAIR's kind.
    """
    yield from plain_tower_keys(model, "FLAIR")
    encoder = model.image
    if isinstance(encoder, VisionTransformer) and isinstance(encoder.pre_norm, nn.Identity):
        raise ConfigError("FLAIR wants model.image.vit.pre_norm=true")
    for published, own in (("logit_scale", "log_scale"), ("logit_bias", "bias")):
        yield Key(published, (f"objective.{own}",), shape=())
    yield from attention_pooling_keys("visual_proj.", "objective.attention_pooling.")
    for side in ("image", "text"):
        yield Key(f"{side}_post.proj", (f"model.project_{side}.weight",), transposed=True)
