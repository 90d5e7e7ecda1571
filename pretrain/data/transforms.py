"""From a picture to a square tensor, and from bytes to what the model sees."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from recaption.common.config import ConfigError, check_choice

Box = tuple[float, float, float, float]  # left, top, right, bottom

# What open_clip's ViTs, and the published CAFT, are normalised with.
IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass
class ImageConfig:
    # squash: the whole picture, whatever its aspect; shortest: its central square. No flip in
    # either: captions say left and right.
    resize: str = "squash"
    min_crop_area: float = 0.9  # training crops cover between this share of the picture and all

    def __post_init__(self) -> None:
        check_choice("data.image.resize", self.resize, ("squash", "shortest"))
        if not 0 < self.min_crop_area <= 1:
            raise ConfigError(f"data.image.min_crop_area={self.min_crop_area}: a share, 0 to 1")


def training_transform(config: ImageConfig, size: int) -> Callable[[Image.Image, Random], Tensor]:
    """A function of a picture and a random state that gives a (3, size, size) uint8 crop."""

    def transform(image: Image.Image, rng: Random) -> Tensor:
        return _resize(image, _random_crop(image.size, config.min_crop_area, rng), size)

    return transform


def evaluation_transform(config: ImageConfig, size: int) -> Callable[[Image.Image], Tensor]:
    """A function of a picture that gives (3, size, size) uint8."""

    def transform(image: Image.Image) -> Tensor:
        width, height = image.size
        left, top, right, bottom = seen_box(width, height, config)
        return _resize(image, (left * width, top * height, right * width, bottom * height), size)

    return transform


def seen_box(width: int, height: int, config: ImageConfig) -> Box:
    """The part of a picture that is seen in evaluation, as fractions (left, top, right, bottom)."""
    if config.resize == "squash":
        return (0.0, 0.0, 1.0, 1.0)
    side = min(width, height)
    left, top = (1 - side / width) / 2, (1 - side / height) / 2
    return (left, top, 1 - left, 1 - top)


def normalise(images: Tensor) -> Tensor:
    """(..., 3, H, W) uint8 -> float32 with the mean and deviation that the models expect."""
    mean = torch.tensor(IMAGE_MEAN, device=images.device).view(3, 1, 1)
    std = torch.tensor(IMAGE_STD, device=images.device).view(3, 1, 1)
    return images.float().div_(255).sub_(mean).div_(std)


def _random_crop(size: tuple[int, int], min_area: float, rng: Random) -> Box:
    """A box of a random share of the area, its aspect within 3/4 and 4/3 of the picture's."""
    width, height = size
    area = rng.uniform(min_area, 1.0)
    # The stretch is as far as the area leaves room for, so that the box never leaves the picture.
    limit = min(math.log(4 / 3), -math.log(area))
    stretch = math.exp(rng.uniform(-limit, limit))
    crop_width = width * math.sqrt(area * stretch)
    crop_height = height * math.sqrt(area / stretch)
    left = rng.uniform(0, width - crop_width)
    top = rng.uniform(0, height - crop_height)
    return left, top, left + crop_width, top + crop_height


def _resize(image: Image.Image, box: Box, size: int) -> Tensor:
    resized = image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC, box=box)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()
