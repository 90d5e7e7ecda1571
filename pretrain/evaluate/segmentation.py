"""Zero-shot segmentation: each pixel's class by the cosines of the places it lies in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from pretrain.evaluate.benchmarks.base import Picture
from pretrain.evaluate.benchmarks.dense import LabelMap, SegmentationSet
from pretrain.evaluate.bootstrap import resampled_interval
from pretrain.evaluate.encode import batches
from pretrain.evaluate.encoders import Encoders, NoMapsError, features_of_blank
from pretrain.evaluate.prompts import class_sentences
from pretrain.evaluate.reading import prepare_ahead
from pretrain.evaluate.sharing import is_first, join_blocks, own_items, rank_and_size
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

    Ranks that make this call together share the images, and the first has the figures; the others
    get none.

    Args:
        batch_size: of windows.

    Raises:
        UserError: the model has no features of places, or labels do not fit their picture.
    """
    windows = windows or Windows()
    classes = class_sentences(encoders, data.classes, data.templates, batch_size)
    num_classes = len(data.classes)
    if encoders.compare_places(features_of_blank(encoders), classes[None]) is None:
        raise NoMapsError(f"{encoders.name} has no features of places")
    own_counts = []
    own = own_items(len(data.images), 1, *rank_and_size())
    pairs = [(data.images[place], data.labels[place]) for place in own]
    with Progress(len(pairs), "images", "segment") as progress:
        for image, labels in prepare_ahead(pairs, lambda pair: _read(*pair, num_classes)):
            scores = class_scores(image, encoders, classes, windows, batch_size)
            found = best_class(scores, labels.shape[0], labels.shape[1]).cpu()
            own_counts.append(count_pixels(torch.from_numpy(labels), found, num_classes))
            progress.advance()
    counts = join_blocks(own_counts)
    if not is_first():
        return {}
    return {"num_images": len(data.images), **summarise(torch.stack(counts), data.classes)}


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
            assert cosines is not None, "asked before"
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


def count_pixels(labels: Tensor, found: Tensor, num_classes: int) -> Tensor:
    """(3, C) float64: pixels of each class, those found as each, and both.

    Labels below 0 do not count.
    """
    counted = labels >= 0
    labels, found = labels[counted], found[counted]
    kinds = (labels, found, labels[labels == found])
    return torch.stack([torch.bincount(kind, minlength=num_classes) for kind in kinds]).double()


def summarise(counts: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """Figures of the pixels (num_images, 3, C) of `count_pixels`.

    A class that has no pixel and is never found has no IoU and is left out of the mean. `chance`
    draws a class for each pixel, all alike likely, and so finds all of them; `commonest_class`
    always takes that one.

    Raises:
        UserError: no pixel has a class.
    """
    own, found, both = counts.sum(dim=0)
    if not own.sum():
        raise UserError("no pixel of the labels has a class: is it the right folder of labels?")
    there = own + found > 0
    iou = both[there] / (own + found - both)[there]
    share = own / own.sum()
    drawn = share / len(classes)
    chance = drawn / (share + 1 / len(classes) - drawn)
    names = [name for name, is_there in zip(classes, there.tolist(), strict=True) if is_there]
    return {
        "miou": iou.mean().item(),
        "miou_interval": resampled_interval(counts.numpy(), _mean_iou),
        "pixel_accuracy": (both.sum() / own.sum()).item(),
        "num_classes_seen": int((own > 0).sum()),
        "iou_by_class": [list(pair) for pair in zip(names, iou.tolist(), strict=True)],
        "chance": {"miou": chance.mean().item(), "pixel_accuracy": 1 / len(classes)},
        "commonest_class": {
            "miou": (share.max() / (own > 0).sum()).item(),
            "pixel_accuracy": share.max().item(),
        },
    }


def _mean_iou(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """(R,) of the summed pixels (R, 3, C) of R sets of images."""
    own, found, both = sums[:, 0], sums[:, 1], sums[:, 2]
    union = own + found - both
    iou = np.divide(both, union, out=np.zeros_like(both), where=union > 0)
    num_there = (union > 0).sum(axis=1)
    means: NDArray[np.float64] = iou.sum(axis=1) / np.maximum(num_there, 1)
    return means


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
