"""Precision and recall of (thing, colour) pairs, and a control with wrong images."""

from collections.abc import Sequence
from dataclasses import dataclass

from tools.score_captions.mentions import Pair, colored_things


@dataclass(frozen=True)
class CaptionScore:
    """Shares in [0, 1] over all pairs of all captions.

    The control scores every caption against another scene, half the list away: what a captioner
    that does not look would reach.
    """

    precision: float
    recall: float
    control_precision: float
    control_recall: float
    num_captions: int


def score_captions(captions: Sequence[str], truths: Sequence[set[Pair]]) -> CaptionScore:
    """Scores caption i against ``truths[i]``, the scene's (thing, colour) pairs.

    Raises:
        ValueError: if there are fewer than two captions, or not one truth for each.
    """
    if len(captions) != len(truths) or len(captions) < 2:
        raise ValueError(
            f"need at least two captions and a truth for each, got {len(captions)} captions "
            f"and {len(truths)} truths"
        )
    named = [colored_things(caption) for caption in captions]
    shift = len(truths) // 2
    precision, recall = _precision_recall(named, truths)
    control = _precision_recall(named, [*truths[shift:], *truths[:shift]])
    return CaptionScore(precision, recall, *control, num_captions=len(captions))


def _precision_recall(
    named: Sequence[set[Pair]], truths: Sequence[set[Pair]]
) -> tuple[float, float]:
    num_right = sum(len(pairs & truth) for pairs, truth in zip(named, truths, strict=True))
    num_named = sum(map(len, named))
    num_true = sum(map(len, truths))
    return num_right / max(num_named, 1), num_right / max(num_true, 1)
