"""Zero-shot classification: the class whose prompts score highest with an image."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from pretrain.evaluate.benchmarks.base import ClassificationSet
from pretrain.evaluate.encoders import Encoders
from pretrain.evaluate.prompts import class_texts, fill
from pretrain.evaluate.reading import read_ahead
from recaption.common.progress import Progress

_LAST = torch.iinfo(torch.int64).max  # rank behind any number of classes


@dataclass(frozen=True)
class ClassificationResult:
    """Shares of the images, and what a random order of the classes is expected to reach."""

    num_images: int
    num_classes: int
    top1: float
    top5: float
    per_class: float  # mean over the classes that have images of each class's top1
    top1_chance: float
    top5_chance: float
    per_class_chance: float


@torch.inference_mode()
def evaluate(data: ClassificationSet, encoders: Encoders, batch_size: int) -> dict[str, Any]:
    """Figures of `ClassificationResult`, and the share of prompts that were cut at the context.

    Images and classes are scored as images and captions are (`Encoders.score`).
    """
    texts = class_texts(encoders, data.classes, data.templates, batch_size)
    rows = []
    with Progress(len(data.images), "images", "classify") as progress:
        pixels = read_ahead(
            data.images, lambda picture: encoders.preprocess(picture.open()), batch_size
        )
        for batch in pixels:
            scores = encoders.score(encoders.encode_images(batch), texts)
            labels = torch.tensor(data.labels[progress.done : progress.done + len(batch)])
            rows.append(ranks(scores.float().cpu(), labels))
            progress.advance(len(batch))
    result = summarise(torch.cat(rows), torch.tensor(data.labels), len(data.classes))
    prompts = [prompt for name in data.classes for prompt in fill(data.templates, name)]
    cut = sum(encoders.is_cut(prompt) for prompt in prompts)
    return {**asdict(result), "prompts_cut": cut / len(prompts)}


def ranks(scores: Tensor, labels: Tensor) -> Tensor:
    """Rank of each image's class among all, (N,) int64, best 1; `scores` are (N, num_classes).

    Of equal scores the class that comes first is ahead, as in an argmax: ImageNet's names hold one
    twice. NaN is behind nothing, so it finds nothing.
    """
    num_classes = scores.shape[1]
    right = scores.gather(1, labels[:, None])
    before = torch.arange(num_classes) < labels[:, None]
    ahead = (scores > right) | ((scores == right) & before)
    return torch.where(scores.isnan().any(dim=1), _LAST, ahead.sum(dim=1) + 1)


def summarise(ranks: Tensor, labels: Tensor, num_classes: int) -> ClassificationResult:
    """Figures of the ranks (N,) of images with `labels` (N,)."""
    first = (ranks == 1).double()
    num_of_class = torch.bincount(labels, minlength=num_classes)
    found = torch.bincount(labels, weights=first, minlength=num_classes)
    has_images = num_of_class > 0
    return ClassificationResult(
        num_images=len(ranks),
        num_classes=num_classes,
        top1=first.mean().item(),
        top5=(ranks <= 5).double().mean().item(),
        per_class=(found[has_images] / num_of_class[has_images]).mean().item(),
        top1_chance=1 / num_classes,
        top5_chance=min(1.0, 5 / num_classes),
        per_class_chance=1 / num_classes,
    )
