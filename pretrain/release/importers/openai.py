"""OpenAI's published CLIP (openai/CLIP): names as open_clip's, mostly in half precision."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from pretrain.models.dual import DualEncoder
from pretrain.models.image.vit import VisionTransformer, VitConfig
from pretrain.models.registry import ImageConfig, ModelConfig, TextConfig
from pretrain.models.text.part import PartTextConfig
from pretrain.objectives.base import Objective
from pretrain.release.importers.keys import Key
from pretrain.release.importers.open_clip import open_clip_keys
from recaption.common.config import UserError

_HEAD_WIDTH = 64  # of all of them
#: What the published files hold in float32; all else is in float16.
_IN_FLOAT32 = ("class_embedding", "positional_embedding", "token_embedding", "logit_scale", "ln_")

#: Held beside the weights, which open_clip's checkpoints of the same names have not.
_SIZES = {"input_resolution", "context_length", "vocab_size"}


def openai_keys(model: DualEncoder, objective: Objective) -> Iterator[Key]:
    """All keys of OpenAI's CLIP of the size of `model`, but `openai_computed`.

    Raises:
        ConfigError: the model is not of CLIP's kind.
    """
    for key in open_clip_keys(model, objective):
        is_full = any(part.startswith(_IN_FLOAT32) for part in key.published.split("."))
        yield key if is_full else replace(key, dtype=torch.float16)


def openai_computed(model: DualEncoder) -> dict[str, Tensor]:
    """`_SIZES`, of the model."""
    encoder, part = model.image, model.part_text
    assert isinstance(encoder, VisionTransformer)
    side = round((encoder.positions.shape[1] - 1) ** 0.5)
    return {
        "input_resolution": torch.tensor(side * encoder.patch_size),
        "context_length": torch.tensor(part.context_length),
        "vocab_size": torch.tensor(part.token_embedding.num_embeddings),
    }


def openai_model(published: Mapping[str, Tensor]) -> ModelConfig:
    """The configuration that the published tensors tell.

    Activation and heads are not in the tensors. That the checkpoint is OpenAI's, the sizes beside
    them say; where none is there, a warning says what is assumed.

    Raises:
        UserError: they are not of a vision transformer of OpenAI's CLIP.
    """
    patches = _shape(published, "visual.conv1.weight", 4)
    num_tokens, width = _shape(published, "visual.positional_embedding", 2)
    context_length, text_width = _shape(published, "positional_embedding", 2)
    vocab_size, _ = _shape(published, "token_embedding.weight", 2)
    _, embed_dim = _shape(published, "text_projection", 2)
    for name, channels in (("visual", width), ("text", text_width)):
        if channels % _HEAD_WIDTH:
            raise UserError(
                f"the {name} width {channels} is no multiple of {_HEAD_WIDTH}, the width of all "
                "heads of OpenAI's CLIP: give method=open_clip and the architecture"
            )
    if not _SIZES & published.keys():
        print(
            f"warning: the checkpoint has none of the keys {', '.join(sorted(_SIZES))}, which "
            "OpenAI's archives have and open_clip's checkpoints have not: quick GELU and heads 64 "
            "wide are assumed; give method=open_clip and the architecture for what open_clip wrote",
            file=sys.stderr,
        )
    vit = VitConfig(
        width=width,
        num_heads=width // _HEAD_WIDTH,
        depth=_num_blocks(published, "visual.transformer.resblocks."),
        patch_size=patches[-1],
        pool="cls",
        pre_norm=True,
        patch_bias=False,
        norm_eps=1e-5,
        activation="quick_gelu",
    )
    part = PartTextConfig(
        width=text_width,
        num_layers=_num_blocks(published, "transformer.resblocks."),
        num_heads=text_width // _HEAD_WIDTH,
        context_length=context_length,
        vocab_size=vocab_size,
        activation="quick_gelu",
    )
    side = round((num_tokens - 1) ** 0.5)
    return ModelConfig(
        embed_dim=embed_dim,
        image=ImageConfig(name="vit", size=side * patches[-1], vit=vit),
        text=TextConfig(name="plain", part=part),
    )


def _shape(published: Mapping[str, Tensor], name: str, num_axes: int) -> tuple[int, ...]:
    if "visual.layer1.0.conv1.weight" in published:
        raise UserError(
            "the checkpoint has the key visual.layer1.0.conv1.weight: it is of a ResNet, and only "
            "vision transformers can be imported"
        )
    if name not in published:
        raise UserError(f"the checkpoint lacks the key {name}: it is not of OpenAI's CLIP")
    if published[name].dim() != num_axes:
        raise UserError(
            f"{name} has the shape {list(published[name].shape)}, where OpenAI's CLIP has "
            f"{num_axes} axes"
        )
    return tuple(published[name].shape)


def _num_blocks(published: Mapping[str, Tensor], prefix: str) -> int:
    blocks = {
        name.removeprefix(prefix).split(".")[0] for name in published if name.startswith(prefix)
    }
    if not blocks:
        raise UserError(f"the checkpoint lacks the key {prefix}0.ln_1.weight: it has no blocks")
    return len(blocks)
