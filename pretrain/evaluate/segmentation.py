"""Zero-shot segmentation: each pixel's class by the cosines of the places it lies in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from pretrain.evaluate.benchmarks.base import Picture
from pretrain.evaluate.benchmarks.dense import LabelMap, SegmentationSet
from pretrain.evaluate.encode import batches
from pretrain.evaluate.encoders import Encoders, NoMapsError
from pretrain.evaluate.prompts import class_sentences
from pretrain.evaluate.reading import prepare_ahead
from recaption.common.config import UserError
from recaption.common.progress import Progress


@dataclass(frozen=True)
class Windows:
    """How a picture is cut; sides in pixels."""

    short_side: int = 448  # of the picture before it is cut
    size: int = 224
    stride: int = 112


@torch.inference_mode()
def evaluate(
    data: SegmentationSet, encoders: Encoders, batch_size: int, windows: Windows | None = None
) -> dict[str, Any]:
    """mIoU, the accuracy of pixels, each class's IoU, and what is reached without looking.

    Args:
        batch_size: of windows.

    Raises:
        UserError: the model has no features of places, or labels do not fit their picture.
    """
    windows = windows or Windows()
    classes = class_sentences(encoders, data.classes, data.templates, batch_size)
    num_classes = len(data.classes)
    confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    pairs = list(zip(data.images, data.labels, strict=True))
    with Progress(len(pairs), "images", "segment") as progress:
        for image, labels in prepare_ahead(pairs, lambda pair: _read(*pair, num_classes)):
            scores = class_scores(image, encoders, classes, windows, batch_size)
            found = best_class(scores, labels.shape[0], labels.shape[1]).cpu()
            confusion += count_pairs(torch.from_numpy(labels), found, num_classes)
            progress.advance()
    return {"num_images": len(pairs), **summarise(confusion, data.classes)}


def class_scores(
    image: Image.Image, encoders: Encoders, classes: Tensor, windows: Windows, batch_size: int
) -> Tensor:
    """(num_classes, H, W) mean over the windows of a pixel of its cosines with the classes.

    H and W are those of the picture with its shorter side at `windows.short_side`.
    """
    image = _resize_short_side(image, windows.short_side)
    total: Tensor | None = None
    counts = torch.zeros(image.height, image.width)
    places = [
        (top, left)
        for top in starts(image.height, windows.size, windows.stride)
        for left in starts(image.width, windows.size, windows.stride)
    ]
    for batch in batches(places, batch_size):
        crops = [image.crop((x, y, x + windows.size, y + windows.size)) for y, x in batch]
        encoded = encoders.encode_images([encoders.preprocess(crop) for crop in crops])
        for row, (top, left) in enumerate(batch):
            cosines = encoders.compare_places(encoded[row : row + 1], classes[None])
            if cosines is None:
                raise NoMapsError(f"{encoders.name} has no features of places")
            size = (windows.size, windows.size)
            cosines = interpolate(cosines.float(), size, mode="bilinear")[0]
            if total is None:
                total = cosines.new_zeros(len(classes), image.height, image.width)
            bottom, right = top + windows.size, left + windows.size
            total[:, top:bottom, left:right] += cosines
            counts[top:bottom, left:right] += 1
    assert total is not None
    return total / counts.to(total.device)


def starts(length: int, size: int, stride: int) -> list[int]:
    """Where windows begin along a side; the last ends with the side."""
    return [*range(0, length - size, stride), length - size]


def best_class(scores: Tensor, height: int, width: int) -> Tensor:
    """(H, W) int64: the class of the highest of the scores (C, h, w), enlarged bilinearly.

    Class by class: all 150 at once of a large picture take gigabytes.
    """
    best = scores.new_full((height, width), float("-inf"))
    found = torch.zeros(height, width, dtype=torch.int64, device=scores.device)
    for number, score in enumerate(scores):
        enlarged = interpolate(score[None, None], (height, width), mode="bilinear")[0, 0]
        better = enlarged > best
        best[better] = enlarged[better]
        found[better] = number
    return found


def count_pairs(labels: Tensor, found: Tensor, num_classes: int) -> Tensor:
    """(C, C) int64: pixels by their class and the one found; labels below 0 do not count."""
    counted = labels >= 0
    pairs = labels[counted] * num_classes + found[counted]
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)


def summarise(confusion: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """Figures of pixels (C, C) by class and class found.

    A class that has no pixel and is never found has no IoU and is left out of the mean. `chance`
    draws a class for each pixel, all alike likely; `commonest_class` always takes that one.

    Raises:
        UserError: no pixel has a class.
    """
    counts = confusion.double()
    if not counts.sum():
        raise UserError("no pixel of the labels has a class: is it the right folder of labels?")
    own, found, both = counts.sum(dim=1), counts.sum(dim=0), counts.diagonal()
    there = own + found > 0
    iou = both[there] / (own + found - both)[there]
    share = (own / own.sum())[own > 0]
    drawn = share / len(classes)
    chance = drawn / (share + 1 / len(classes) - drawn)
    names = [name for name, is_there in zip(classes, there.tolist(), strict=True) if is_there]
    return {
        "miou": iou.mean().item(),
        "pixel_accuracy": (both.sum() / counts.sum()).item(),
        "num_classes_seen": int((own > 0).sum()),
        "iou_by_class": [list(pair) for pair in zip(names, iou.tolist(), strict=True)],
        "chance": {"miou": chance.mean().item(), "pixel_accuracy": 1 / len(classes)},
        "commonest_class": {
            "miou": (share.max() / len(share)).item(),
            "pixel_accuracy": share.max().item(),
        },
    }


def _read(picture: Picture, labels: LabelMap, num_classes: int) -> tuple[Image.Image, np.ndarray]:
    image, values = picture.open(), labels.read(num_classes)
    if values.shape != (image.height, image.width):
        raise UserError(
            f"{labels.path} is of {values.shape[1]} x {values.shape[0]} pixels, its picture "
            f"{picture.name} of {image.width} x {image.height}"
        )
    return image, values


def _resize_short_side(image: Image.Image, side: int) -> Image.Image:
    scale = side / min(image.size)
    width, height = (max(side, round(scale * length)) for length in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)
