"""From a picture to a square tensor, and from bytes to what the model sees."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

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
    # training decodes a JPEG at 1/2, 1/4 or 1/8 of its size where the crop keeps at least the
    # resolution that the model sees
    reduced_decode: bool = True

    def __post_init__(self) -> None:
        check_choice("data.image.resize", self.resize, ("squash", "shortest"))
        if not 0 < self.min_crop_area <= 1:
            raise ConfigError(f"data.image.min_crop_area={self.min_crop_area}: a share, 0 to 1")


def training_transform(config: ImageConfig, size: int) -> Callable[[Image.Image, Random], Tensor]:
    """A function of a picture and a random state that gives a (3, size, size) uint8 crop.

    A JPEG that is opened and not yet loaded is decoded no larger than its crop needs.
    """

    def transform(image: Image.Image, rng: Random) -> Tensor:
        box = _random_crop(image.size, config.min_crop_area, rng)
        factor = _reduce(image, box, size) if config.reduced_decode else 1
        return _crop_and_resize(image, box, factor, size)

    return transform


def evaluation_transform(config: ImageConfig, size: int) -> Callable[[Image.Image], Tensor]:
    """A function of a picture that gives (3, size, size) uint8, the very pixels of open_clip's.

    For `shortest` that is torchvision's `Resize` and `CenterCrop`: whole pixels are cut off the
    resized picture, so that what is seen may be half a pixel beside `seen_box`.
    """

    def transform(image: Image.Image) -> Tensor:
        resized = (size, size)
        if config.resize == "shortest":
            shortest = min(image.size)
            resized = (size * image.width // shortest, size * image.height // shortest)
        left, top = (round((length - size) / 2) for length in resized)
        pixels = image.convert("RGB").resize(resized, Image.Resampling.BICUBIC)
        pixels = pixels.crop((left, top, left + size, top + size))
        return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).contiguous()

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


def denormalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(..., 3, H, W) normalised -> uint8, to look at."""
    pixels = images.cpu() * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1)
    return pixels.mul(255).round().clamp(0, 255).to(torch.uint8)


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


def _reduce(image: Image.Image, box: Box, size: int) -> int:
    """Has a JPEG decoded at 1/2, 1/4 or 1/8 and returns the divisor; 1 where that is too little.

    The decoder then computes fewer coefficients and pixels, a smaller block's inverse cosine
    transform being the average of the pixels it stands for.
    """
    left, top, right, bottom = box
    available = min(right - left, bottom - top) / size
    wanted = next((divisor for divisor in (8, 4, 2) if divisor <= available), 1)
    if wanted == 1:
        return 1
    width, height = image.size
    scaled = image.draft(None, (width // wanted, height // wanted))
    if scaled is None:  # no JPEG, or loaded already
        return 1
    _, (_, _, scaled_width, _) = scaled
    return round(width / scaled_width)


def _crop_and_resize(image: Image.Image, box: Box, factor: int, size: int) -> Tensor:
    """The box, in pixels of the whole picture, of a picture decoded at 1/factor.

    Torch's bicubic filter is Pillow's (antialiased, a = -0.5) with vector instructions and takes a
    third of its time; it wants whole pixels, to which the box is rounded.
    """
    image = image.convert("RGB")
    left, right = _whole_pixels(box[0] / factor, box[2] / factor, image.width)
    top, bottom = _whole_pixels(box[1] / factor, box[3] / factor, image.height)
    pixels = torch.from_numpy(np.array(image)[top:bottom, left:right]).permute(2, 0, 1)
    return interpolate(pixels[None], (size, size), mode="bicubic", antialias=True)[0]


def _whole_pixels(start: float, end: float, length: int) -> tuple[int, int]:
    first = min(round(start), length - 1)
    return first, min(max(round(end), first + 1), length)
