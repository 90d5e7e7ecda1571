"""Fine-grained choice: of several texts that differ in a detail, which one fits the image?"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from pretrain.evaluate.benchmarks.base import ChoiceSet
from pretrain.evaluate.encode import batches
from pretrain.evaluate.encoders import Encoders
from pretrain.evaluate.reading import read_ahead
from pretrain.models.features import TextFeatures
from recaption.common.progress import Progress

_BLOCK = 8  # images that are scored with each other's texts, too: few large calls, little waste


@dataclass(frozen=True)
class GroupResult:
    num_choices: int
    accuracy: float  # share where the right text scores above all others; a tie is wrong
    chance: float


@torch.inference_mode()
def evaluate(data: ChoiceSet, encoders: Encoders, batch_size: int) -> dict[str, Any]:
    """`GroupResult` over everything and by group, the mean over groups, and the share of texts
    that were cut at the context.
    """
    every_text = [text for texts in data.choices for text in texts]
    unique = {text: position for position, text in enumerate(dict.fromkeys(every_text))}
    features = _encode(encoders, list(unique), batch_size)
    right: list[bool] = []
    with Progress(len(data.images), "images", "choose") as progress:
        pixels = read_ahead(
            data.images, lambda picture: encoders.preprocess(picture.open()), batch_size
        )
        for batch in pixels:
            encoded = encoders.encode_images(batch)
            for start in range(0, len(batch), _BLOCK):
                stop = min(start + _BLOCK, len(batch))
                choices = data.choices[progress.done + start : progress.done + stop]
                columns = torch.tensor([unique[text] for texts in choices for text in texts])
                scores = encoders.score(encoded[start:stop], features[columns]).float().cpu()
                right += right_is_best(scores, [len(texts) for texts in choices])
            progress.advance(len(batch))
    groups = {
        group: _result([r for r, g in zip(right, data.groups, strict=True) if g == group], texts)
        for group, texts in _by_group(data).items()
    }
    cut = sum(encoders.is_cut(text) for text in every_text)
    return {
        **asdict(_result(right, data.choices)),
        "mean_of_groups": sum(result.accuracy for result in groups.values()) / len(groups),
        "by_group": {group: asdict(result) for group, result in groups.items()},
        "texts_cut": cut / len(every_text),
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


def _by_group(data: ChoiceSet) -> dict[str, list[Sequence[str]]]:
    groups: dict[str, list[Sequence[str]]] = {}
    for group, texts in zip(data.groups, data.choices, strict=True):
        groups.setdefault(group, []).append(texts)
    return groups


def _result(right: Sequence[bool], choices: Sequence[Sequence[str]]) -> GroupResult:
    chances = [1 / len(texts) for texts in choices]
    return GroupResult(len(right), sum(right) / len(right), sum(chances) / len(chances))
