"""Zero-shot segmentation: each pixel's class by the cosines of the places it lies in."""

from collections.abc import Iterator, Sequence
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
from pretrain.evaluate.bootstrap import INTERVALS, resampled_interval
from pretrain.evaluate.encode import batches
from pretrain.evaluate.encoders import Encoders, NoMapsError, features_of_blank, share_cut
from pretrain.evaluate.prompts import class_sentences, fill
from pretrain.evaluate.reading import prepare_ahead
from pretrain.evaluate.sharing import is_first, join_blocks, own_items, rank_and_size
from pretrain.models.features import ImageFeatures
from recaption.common.config import UserError
from recaption.common.progress import Progress

#: Pictures whose windows share batches. Ranks take them by so many, so that what is encoded
#: together does not depend on the number of ranks.
_TOGETHER = 16


@dataclass(frozen=True)
class Windows:
    """How a picture is cut; sides in pixels."""

    short_side: int = 448  # of the picture before it is cut
    size: int = 224
    stride: int = 112


@dataclass(frozen=True)
class Cut:
    """A picture as its windows."""

    height: int  # of the resized picture, pixels
    width: int
    windows: Windows
    places: list[tuple[int, int]]  # top and left of each window
    pixels: list[Tensor]  # each window, as `Encoders.preprocess` gives it


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
    own_counts: list[list[Tensor]] = []
    own = own_items(len(data.images), _TOGETHER, *rank_and_size())
    pairs = [(data.images[place], data.labels[place]) for place in own]

    def prepare(pair: tuple[Picture, LabelMap]) -> tuple[Cut, np.ndarray]:
        image, labels = _read(*pair, num_classes)
        return cut(image, encoders, windows), labels

    with Progress(len(pairs), "images", "segment") as progress:
        for block in batches(prepare_ahead(pairs, prepare, ahead=1), _TOGETHER):
            own_counts.append([])
            features = encode_windows([picture for picture, _ in block], encoders, batch_size)
            for picture, labels in block:
                scores = class_scores(picture, features, encoders, classes)
                found = best_class(scores, labels.shape[0], labels.shape[1]).cpu()
                own_counts[-1].append(count_pixels(torch.from_numpy(labels), found, num_classes))
                progress.advance()
    counts = [of_picture for block in join_blocks(own_counts) for of_picture in block]
    if not is_first():
        return {}
    prompts = [prompt for name in data.classes for prompt in fill(data.templates, name)]
    return {
        "num_images": len(data.images),
        **summarise(torch.stack(counts), data.classes),
        "share_cut": share_cut(encoders, prompts),
    }


def cut(image: Image.Image, encoders: Encoders, windows: Windows) -> Cut:
    """A picture, with its shorter side at `windows.short_side`, as windows that cover it."""
    image = _resize_short_side(image, windows.short_side)
    places = [
        (top, left)
        for top in starts(image.height, windows.size, windows.stride)
        for left in starts(image.width, windows.size, windows.stride)
    ]
    crops = (image.crop((x, y, x + windows.size, y + windows.size)) for y, x in places)
    pixels = [encoders.preprocess(crop) for crop in crops]
    return Cut(image.height, image.width, windows, places, pixels)


def encode_windows(
    pictures: Sequence[Cut], encoders: Encoders, batch_size: int
) -> Iterator[ImageFeatures]:
    """Features of the windows of all pictures, one by one, encoded in full batches."""
    every = (pixels for picture in pictures for pixels in picture.pixels)
    for batch in batches(every, batch_size):
        encoded = encoders.encode_images(batch)
        for row in range(len(batch)):
            yield encoded[row : row + 1]


def class_scores(
    picture: Cut, features: Iterator[ImageFeatures], encoders: Encoders, classes: Tensor
) -> Tensor:
    """(num_classes, H, W) mean over the windows of a pixel of its cosines with the classes.

    Args:
        features: those of the picture's windows are taken from it.
    """
    size = picture.windows.size
    total: Tensor | None = None
    counts = torch.zeros(picture.height, picture.width)
    for top, left in picture.places:
        cosines = encoders.compare_places(next(features), classes[None])
        assert cosines is not None, "asked before"
        cosines = interpolate(cosines.float(), (size, size), mode="bilinear")[0]
        if total is None:
            total = cosines.new_zeros(len(classes), picture.height, picture.width)
        total[:, top : top + size, left : left + size] += cosines
        counts[top : top + size, left : left + size] += 1
    assert total is not None
    return total / counts.to(total.device)


def starts(length: int, size: int, stride: int) -> list[int]:
    """Where windows begin along a side; the last ends with the side."""
    return [*range(0, length - size, stride), length - size]


def best_class(scores: Tensor, height: int, width: int) -> Tensor:
    """(H, W) int64: the class of the highest of the scores (C, h, w), enlarged bilinearly; C, which
    is none, where all scores are NaN.

    Class by class: all 150 at once of a large picture take gigabytes.
    """
    best = scores.new_full((height, width), float("-inf"))
    found = torch.full_like(best, len(scores), dtype=torch.int64)
    for number, score in enumerate(scores):
        enlarged = interpolate(score[None, None], (height, width), mode="bilinear")[0, 0]
        better = enlarged > best
        best[better] = enlarged[better]
        found[better] = number
    return found


def count_pixels(labels: Tensor, found: Tensor, num_classes: int) -> Tensor:
    """(3, C) float64: pixels of each class, those found as each, and both.

    Labels below 0 do not count. What is found as C is found as none.
    """
    counted = labels >= 0
    labels, found = labels[counted], found[counted]
    kinds = (labels, found, labels[labels == found])
    return torch.stack(
        [torch.bincount(kind, minlength=num_classes + 1)[:num_classes] for kind in kinds]
    ).double()


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
        "intervals": INTERVALS,
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
