"""The tiny model in the LLaVA layout that vLLM serves."""

from typing import Any

import torch
from torch import Tensor
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

IMAGE_SIZE = 112
PATCH_SIZE = 14
GRID_SIZE = IMAGE_SIZE // PATCH_SIZE
NUM_PATCHES = GRID_SIZE**2
WIDTH = 192
NUM_HEADS = 6

#: Layers of the tower, and after how many of them patches must tell outlines.
NUM_TOWER_LAYERS, NUM_EARLY_LAYERS = 4, 2

ROPE_THETA = 1e6

#: What the tower subtracts from and divides colours in [0, 1] by.
MEAN, STD = 0.5, 0.3


def build_model(vocab_size: int, token_ids: dict[str, int]) -> LlavaForConditionalGeneration:
    """A CLIP tower of 4 layers, a projector and a Llama of 3 layers, randomly initialised.

    Args:
        vocab_size: number of tokens.
        token_ids: ids of ``<pad>``, ``<s>``, ``</s>`` and ``<image>``.
    """
    vision = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=NUM_TOWER_LAYERS,
        num_attention_heads=NUM_HEADS,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        hidden_act="gelu",
        projection_dim=WIDTH,
    )
    text = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=WIDTH,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=NUM_HEADS,
        num_key_value_heads=NUM_HEADS,
        max_position_embeddings=512,
        # Slow rotations leave most of a head to compare contents: a word must find its patch.
        rope_theta=ROPE_THETA,
        tie_word_embeddings=False,
        bos_token_id=token_ids["<s>"],
        eos_token_id=token_ids["</s>"],
        pad_token_id=token_ids["<pad>"],
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=token_ids["<image>"],
        image_seq_length=NUM_PATCHES,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=False,
    )
    return LlavaForConditionalGeneration(config)


def to_pixels(images: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float, normalised as the saved processor does."""
    return (images.permute(0, 3, 1, 2).float() / 255 - MEAN) / STD


def encode_patches(model: LlavaForConditionalGeneration, images: Tensor) -> tuple[Tensor, Tensor]:
    """Patches without CLS in the middle and at the end of the tower, (B, P, WIDTH) each.

    The latter are what the projector is given, in training as in vLLM.
    """
    states = model.model.vision_tower(to_pixels(images), output_hidden_states=True).hidden_states
    return states[NUM_EARLY_LAYERS][:, 1:], states[NUM_TOWER_LAYERS][:, 1:]


def state_for_vllm(model: LlavaForConditionalGeneration, dtype: torch.dtype) -> dict[str, Any]:
    """The weights under the names that both vLLM and transformers read.

    transformers 5 calls the tower's weights ``vision_tower.*``; vLLM 0.32, like transformers 4,
    ``vision_tower.vision_model.*``.
    """
    state = {}
    for name, weight in model.state_dict().items():
        parts = name.split("vision_tower.", 1)
        if len(parts) == 2 and not parts[1].startswith("vision_model."):
            name = f"{parts[0]}vision_tower.vision_model.{parts[1]}"
        state[name] = weight.to(dtype).contiguous()
    return state
