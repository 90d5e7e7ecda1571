"""Outputs on fixed inputs, by which a written release is compared with what it was made from.

``python -m pretrain.release.sample FOLDER OUTPUT`` loads a release in a process of its own and
writes them as safetensors.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from pretrain.release.model import ReleasedModel, load

CAPTIONS = (
    "A red kite flies above a green hill. Two children hold its string. The sky is cloudy.",
    "A cat sleeps.",
    "On the left stands a tall tree. A bench is under it. A dog runs to the right. Behind it lies "
    "a lake. A small boat is on the lake. The sun sets over the hills far away.",
)


def sample_outputs(model: ReleasedModel) -> dict[str, Tensor]:
    """Every call of a released model on drawn pictures and `CAPTIONS`."""
    images = [_picture(number) for number in range(3)]
    heat = model.localise(images[0], CAPTIONS[1])
    return {
        "image": model.encode_image(images),
        "text": model.encode_text(CAPTIONS),
        "similarity": model.similarity(images, CAPTIONS),
        "localise": torch.from_numpy(heat),
    }


def _picture(number: int) -> Image.Image:
    """Smooth colours with a block of noise, 96 x 80, the same wherever it is drawn."""
    rows, columns = np.mgrid[0:80, 0:96] / 96
    channels = [np.sin((number + 2) * rows + k * columns) for k in range(3)]
    pixels = np.stack(channels, axis=-1) * 100 + 128
    noise = np.random.default_rng(number).uniform(-80, 80, (32, 32, 3))
    pixels[24:56, 32:64] += noise
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


if __name__ == "__main__":
    save_file(sample_outputs(load(Path(sys.argv[1]), verify=True)), sys.argv[2])
