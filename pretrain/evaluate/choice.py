"""Fine-grained choice: of several texts that differ in a detail, which one fits the image?"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pretrain.evaluate.benchmarks.base import ChoiceSet, Picture
from pretrain.evaluate.bootstrap import share_intervals
from pretrain.evaluate.encode import batches
from pretrain.evaluate.encoders import Encoders
from pretrain.evaluate.reading import read_ahead
from pretrain.models.features import TextFeatures
from recaption.common.progress import Progress

_BLOCK = 8  # images that are scored with each other's texts, too: few large calls, little waste


@torch.inference_mode()
def evaluate(data: ChoiceSet, encoders: Encoders, batch_size: int) -> dict[str, Any]:
    """Figures of `figures`, and the share of texts that were cut at the context."""
    every_text = [text for texts in data.choices for text in texts]
    unique = {text: position for position, text in enumerate(dict.fromkeys(every_text))}
    features = _encode(encoders, list(unique), batch_size)
    right: list[bool] = []
    with Progress(len(data.images), "images", "choose") as progress:
        for batch in batches(read_ahead(data.images, encoders.preprocess), batch_size):
            encoded = encoders.encode_images(batch)
            for start in range(0, len(batch), _BLOCK):
                stop = min(start + _BLOCK, len(batch))
                choices = data.choices[progress.done + start : progress.done + stop]
                columns = torch.tensor([unique[text] for texts in choices for text in texts])
                scores = encoders.score(encoded[start:stop], features[columns]).float().cpu()
                right += right_is_best(scores, [len(texts) for texts in choices])
            progress.advance(len(batch))
    return {
        **figures(right, [len(texts) for texts in data.choices], data.groups, data.images),
        "share_cut": sum(map(encoders.is_cut, every_text)) / len(every_text),
    }


def right_is_best(scores: Tensor, num_texts: Sequence[int]) -> list[bool]:
    """Whether the first of each image's own texts scores strictly above its others.

    Args:
        scores: (B, sum of num_texts), the texts of the first image first.
    """
    right, start = [], 0
    for row, count in zip(scores, num_texts, strict=True):
        own = row[start : start + count]
        right.append(bool((own[0] > own[1:]).all()))
        start += count
    return right


def _encode(encoders: Encoders, texts: Sequence[str], batch_size: int) -> TextFeatures:
    rows = []
    with Progress(len(texts), "texts", "encode") as progress:
        for batch in batches(texts, batch_size):
            rows.append(encoders.encode_captions(batch))
            progress.advance(len(batch))
    return TextFeatures.concatenate(rows)


def figures(
    right: Sequence[bool],
    num_texts: Sequence[int],
    groups: Sequence[str],
    images: Sequence[Picture],
) -> dict[str, Any]:
    """`accuracy`, the share of choices whose right text scores above all others (a tie is wrong),
    its interval under another draw of the image files, by group, and the mean over the groups.
    """
    hits = torch.tensor(right, dtype=torch.float64)
    chance = 1 / torch.tensor(num_texts, dtype=torch.float64)
    files = {image.name: number for number, image in enumerate(images)}
    image_of_choice = np.array([files[image.name] for image in images])
    names = list(dict.fromkeys(groups))
    members = [torch.tensor([group == name for group in groups]) for name in names]

    def by_group(values: Tensor) -> dict[str, float]:
        means = [values[member].mean().item() for member in members]
        return dict(zip(names, means, strict=True))

    return {
        "num_choices": len(right),
        "accuracy": hits.mean().item(),
        "accuracy_interval": share_intervals(hits[:, None].numpy(), image_of_choice)[0],
        "mean_of_groups": sum(by_group(hits).values()) / len(names),
        "by_group": by_group(hits),
        "num_by_group": [
            [name, int(member.sum())] for name, member in zip(names, members, strict=True)
        ],
        "chance": {
            "accuracy": chance.mean().item(),
            "mean_of_groups": sum(by_group(chance).values()) / len(names),
            "by_group": by_group(chance),
        },
    }
