import io
import math
from random import Random

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
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


def as_jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def texture(width: int, height: int) -> Image.Image:
    """Noise of two grains, and an edge."""
    rng = np.random.default_rng(0)
    pixels = np.zeros((height, width, 3), np.float32)
    for grain, strength in ((2, 15), (24, 45)):
        small = rng.normal(size=(height // grain, width // grain, 3)) * strength + 128
        layer = Image.fromarray(small.clip(0, 255).astype(np.uint8))
        pixels += np.asarray(layer.resize((width, height), Image.Resampling.BICUBIC)) / 2
    pixels[height // 3 :, width // 2 :] *= 0.5
    return Image.fromarray(pixels.astype(np.uint8))


def crops(
    data: bytes, size: int, min_area: float, seed: int
) -> tuple[torch.Tensor, torch.Tensor, tuple[int, int]]:
    """Reduced and full decode of the same crop, and the size that the first was decoded at."""
    opened = Image.open(io.BytesIO(data))
    reduced = training_transform(ImageConfig(min_crop_area=min_area), size)
    full = training_transform(ImageConfig(min_crop_area=min_area, reduced_decode=False), size)
    crop = reduced(opened, Random(seed))
    return crop, full(Image.open(io.BytesIO(data)), Random(seed)), opened.size


@pytest.mark.parametrize(
    ("width", "height", "size", "decoded"),
    [
        (683, 512, 224, (342, 256)),
        (512, 512, 96, (128, 128)),
        (512, 2048, 60, (64, 256)),
        (256, 341, 224, (256, 341)),
        (447, 900, 224, (447, 900)),  # half would be a pixel too few
    ],
)
def test_a_jpeg_is_decoded_no_larger_than_its_crop_needs(
    width: int, height: int, size: int, decoded: tuple[int, int]
) -> None:
    crop, full, decoded_size = crops(as_jpeg(texture(width, height)), size, 1.0, 0)
    assert decoded_size == decoded
    if decoded == (width, height):
        assert torch.equal(crop, full)
    else:
        assert not torch.equal(crop, full)
        assert (crop.float() - full.float()).abs().mean() < 1.5


def test_reduced_crops_are_the_same_part_of_the_picture() -> None:
    """Up to half a pixel of rounding: a crop two pixels beside it differs by far more."""
    data = as_jpeg(texture(683, 512))
    for seed in range(8):
        crop, full, _ = crops(data, 112, 0.6, seed)
        rolled = full.roll(2, dims=-1)
        here = (crop.float() - full.float())[..., 2:].abs().mean()
        beside = (crop.float() - rolled.float())[..., 2:].abs().mean()
        assert here < beside / 2


def test_crops_are_where_they_always_were() -> None:
    """Boxes of a key must not change between versions: resumed runs would see other crops."""
    data = as_jpeg(texture(341, 256))
    for seed in range(8):
        crop, _, _ = crops(data, 224, 0.5, seed)
        area_rng = Random(seed)
        area = area_rng.uniform(0.5, 1.0)
        limit = min(math.log(4 / 3), -math.log(area))
        stretch = math.exp(area_rng.uniform(-limit, limit))
        width, height = 341 * math.sqrt(area * stretch), 256 * math.sqrt(area / stretch)
        left, top = area_rng.uniform(0, 341 - width), area_rng.uniform(0, 256 - height)
        box = (left, top, left + width, top + height)
        picture = Image.open(io.BytesIO(data)).resize((224, 224), Image.Resampling.BICUBIC, box=box)
        expected = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float()
        here = (crop.float() - expected)[..., 3:].abs().mean()
        beside = (crop.roll(3, dims=-1).float() - expected)[..., 3:].abs().mean()
        assert here < beside / 3


@pytest.mark.parametrize("mode", ["L", "CMYK", "P"])
def test_pictures_of_other_modes(mode: str) -> None:
    buffer = io.BytesIO()
    texture(160, 120).convert(mode).save(buffer, "PNG" if mode == "P" else "JPEG")
    crop, full, _ = crops(buffer.getvalue(), 40, 1.0, 0)
    assert crop.shape == (3, 40, 40)
    assert (crop.float() - full.float()).abs().mean() < 3


@pytest.mark.parametrize("size", [(97, 41), (41, 97), (64, 48), (32, 33), (500, 375), (20, 20)])
@pytest.mark.parametrize("resize", ["shortest", "squash"])
def test_evaluation_sees_the_pixels_that_open_clip_sees(size: tuple[int, int], resize: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
    image = Image.fromarray(noise)
    cfg = PreprocessCfg(size=32, resize_mode=resize)
    expected = image_transform_v2(cfg, is_train=False)(image)
    found = normalise(evaluation_transform(ImageConfig(resize=resize), 32)(image))
    torch.testing.assert_close(found, expected)
