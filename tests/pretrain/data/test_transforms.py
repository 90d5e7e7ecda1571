from random import Random

import pytest
import torch
from PIL import Image

from pretrain.data.transforms import (
    IMAGE_MEAN,
    ImageConfig,
    evaluation_transform,
    normalise,
    training_transform,
)


def halves(width: int, height: int) -> Image.Image:
    """Left half red, right half blue."""
    image = Image.new("RGB", (width, height), (255, 0, 0))
    image.paste((0, 0, 255), (width // 2, 0, width, height))
    return image


def test_squash_keeps_the_whole_picture() -> None:
    tensor = evaluation_transform(ImageConfig(), 32)(halves(200, 100))
    assert tensor.shape == (3, 32, 32)
    assert tensor.dtype == torch.uint8
    assert tensor[0, :, :15].float().mean() > 250
    assert tensor[2, :, 17:].float().mean() > 250


def test_shortest_takes_the_central_square() -> None:
    image = Image.new("RGB", (300, 100), (0, 255, 0))
    image.paste((255, 0, 0), (100, 0, 200, 100))
    tensor = evaluation_transform(ImageConfig(resize="shortest"), 32)(image)
    assert tensor[0, :, 1:-1].float().mean() > 250


@pytest.mark.parametrize("min_area", [0.3, 0.9, 1.0])
def test_training_crops_stay_inside_and_never_flip(min_area: float) -> None:
    transform = training_transform(ImageConfig(min_crop_area=min_area), 32)
    crops = [transform(halves(160, 120), Random(seed)) for seed in range(30)]
    assert all(crop[0, :, :3].float().mean() > 250 for crop in crops)
    assert all(crop[2, :, -3:].float().mean() > 250 for crop in crops)
    assert (len({crop.numpy().tobytes() for crop in crops}) > 1) == (min_area < 1)


def test_the_same_random_state_gives_the_same_crop() -> None:
    transform = training_transform(ImageConfig(min_crop_area=0.5), 32)
    first, second = (transform(halves(160, 120), Random(7)) for _ in range(2))
    assert torch.equal(first, second)


def test_normalise_brings_the_mean_to_zero() -> None:
    images = torch.tensor([round(mean * 255) for mean in IMAGE_MEAN]).to(torch.uint8)
    assert normalise(images.view(1, 3, 1, 1).expand(2, 3, 4, 4)).abs().max() < 0.02
