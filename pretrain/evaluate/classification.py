"""Zero-shot classification: the class whose prompts score highest with an image."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pretrain.evaluate.benchmarks.base import ClassificationSet
from pretrain.evaluate.bootstrap import INTERVALS, share_intervals
from pretrain.evaluate.encode_shared import encode_images
from pretrain.evaluate.encoders import Encoders, share_cut
from pretrain.evaluate.prompts import class_texts, fill
from pretrain.evaluate.sharing import is_first, join_blocks, own_items, rank_and_size
from pretrain.evaluate.streamed import TILE, tiles

_LAST = torch.iinfo(torch.int64).max  # rank behind any number of classes


@torch.inference_mode()
def evaluate(data: ClassificationSet, encoders: Encoders, batch_size: int) -> dict[str, Any]:
    """Figures of `figures`, and the share of prompts that were cut at the context.

    Images and classes are scored as images and captions are (`Encoders.score`). Ranks that make
    this call together share the images, and the first has the figures; the others get none.
    """
    texts = class_texts(encoders, data.classes, data.templates, batch_size)
    own = own_items(len(data.images), TILE, *rank_and_size())
    images = encode_images([data.images[place] for place in own], encoders, batch_size)
    labels = torch.tensor([data.labels[place] for place in own], dtype=torch.int64).split(TILE)
    # Not strict: a rank without images has no tiles, and one empty block of labels.
    own_ranks = [
        ranks(encoders.score(tile, texts).float().cpu(), some)
        for tile, some in zip(tiles(images, TILE), labels, strict=False)
    ]
    rows = join_blocks(own_ranks)
    if not is_first():
        return {}
    prompts = [prompt for name in data.classes for prompt in fill(data.templates, name)]
    return {
        **figures(torch.cat(rows), torch.tensor(data.labels), len(data.classes)),
        "share_cut": share_cut(encoders, prompts),
    }


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


def figures(ranks: Tensor, labels: Tensor, num_classes: int) -> dict[str, Any]:
    """Shares of images (N,) whose class is first, or among the first five; `per_class` is the mean
    over the classes that have images of each class's top1, for sets of uneven classes.
    """
    hits = torch.stack([ranks == 1, ranks <= 5], dim=1).double()
    num_of_class = torch.bincount(labels, minlength=num_classes)
    found = torch.bincount(labels, weights=hits[:, 0], minlength=num_classes)
    has_images = num_of_class > 0
    top1, top5 = hits.mean(dim=0).tolist()
    intervals = share_intervals(hits.numpy(), np.arange(len(ranks)))
    return {
        "num_images": len(ranks),
        "num_classes": num_classes,
        "top1": top1,
        "top1_interval": intervals[0],
        "top5": top5,
        "top5_interval": intervals[1],
        "intervals": INTERVALS,
        "per_class": (found[has_images] / num_of_class[has_images]).mean().item(),
        "chance": {
            "top1": 1 / num_classes,
            "top5": min(1.0, 5 / num_classes),
            "per_class": 1 / num_classes,
        },
    }
