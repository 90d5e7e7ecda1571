"""A tower that starts out seeing: patches, positions and attention set rather than random.

With random ones the tower spends most of a short training on learning what a neighbouring patch
is, and the thing's shape stays unread until then.
"""

import math

import numpy as np
import torch
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from tools.train_captioner.model import NUM_HEADS, PATCH_SIZE, WIDTH, to_pixels


@torch.no_grad()
def initialise_tower(model: LlavaForConditionalGeneration, images: np.ndarray) -> None:
    """Principal components as patch projection, sin-cos positions, attention to what is near.

    Args:
        model: the captioner, changed in place.
        images: (N, H, H, 3) uint8, a few hundred pictures.
    """
    tower = model.model.vision_tower
    # transformers 4 wraps the tower once more than transformers 5 does.
    tower = getattr(tower, "vision_model", tower)
    for layer in tower.encoder.layers:
        _attend_to_the_like(layer.self_attn.q_proj.weight, layer.self_attn.k_proj.weight)
    embeddings = tower.embeddings
    pixels = to_pixels(torch.from_numpy(images))
    patches = torch.nn.functional.unfold(pixels, PATCH_SIZE, stride=PATCH_SIZE)
    patches = patches.transpose(1, 2).reshape(-1, 3 * PATCH_SIZE**2)
    patches = patches - patches.mean(0)
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    values, vectors = values.flip(0)[:WIDTH], vectors.flip(1)[:, :WIDTH]
    # Half whitened: details count for more than their variance, noise does not drown all else.
    components = vectors / values.clamp(min=1e-6).pow(0.25)
    components = components / (values.clamp(min=1e-6).sqrt().mean().sqrt())
    embeddings.patch_embedding.weight.copy_(components.T.reshape(WIDTH, 3, PATCH_SIZE, PATCH_SIZE))
    side = images.shape[1] // PATCH_SIZE
    positions = torch.cat([torch.zeros(1, WIDTH), sin_cos_positions(side)])
    embeddings.position_embedding.weight.copy_(positions)


def _attend_to_the_like(query: Tensor, key: Tensor, scale: float = 0.8) -> None:
    """Query equal to key, so that a patch first looks at patches near to it and like it.

    The idea of "Mimetic Initialization of Self-Attention Layers" (Trockman and Kolter, 2023).
    """
    head_size = WIDTH // NUM_HEADS
    for start in range(0, WIDTH, head_size):
        rows = torch.nn.init.orthogonal_(torch.empty(head_size, WIDTH), gain=scale)
        query[start : start + head_size] = rows
        key[start : start + head_size] = rows


def sin_cos_positions(side: int) -> Tensor:
    """(side * side, WIDTH): half of the width for the row, half for the column."""
    quarter = WIDTH // 4
    frequencies = math.pi / 2 / torch.logspace(0, math.log10(2.0 * side), quarter)
    angles = torch.arange(side)[:, None] * frequencies
    line = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows = line[:, None].expand(side, side, -1)
    columns = line[None].expand(side, side, -1)
    return torch.cat([rows, columns], dim=-1).reshape(side * side, WIDTH)
