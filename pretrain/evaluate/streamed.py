"""Scores of all images with all texts, without ever holding the tokens of all images.

Text-conditioned scores read every token of an image: of 10,000 images these would be several GB.
So images come in batches, and what is kept is a row of scores an image. A product of matrices may
round differently for other numbers of rows, therefore scores are always computed for the same
`TILE` images at once, whatever batches they came in: the figures do not depend on that.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from pretrain.evaluate.encoders import BlendedScore, Scorer
from pretrain.models.features import ImageFeatures, TextFeatures

TILE = 256  # images scored at once; texts are normalised again for each tile


@torch.inference_mode()
def streamed_scores(
    encoders: Scorer, images: Iterable[ImageFeatures], num_images: int, texts: TextFeatures
) -> dict[str, Tensor]:
    """(num_images, num_texts) float32 on the CPU by name, the retrieval score first.

    Args:
        images: batches of any sizes, `num_images` in all.
        texts: of the whole set.
    """
    scores: dict[str, Tensor] = {}
    start = 0
    for tile in tiles(images, TILE):
        for name, rows in _columns(encoders, tile, texts).items():
            if name not in scores:
                scores[name] = torch.empty(num_images, len(texts))
            scores[name][start : start + len(tile)] = rows
        start += len(tile)
    if start != num_images:
        raise ValueError(f"{start} images came, not {num_images}")
    return scores


def tiles(batches: Iterable[ImageFeatures], size: int) -> Iterator[ImageFeatures]:
    """The same images in batches of exactly `size`, but for the last."""
    waiting: ImageFeatures | None = None
    for batch in batches:
        batch = replace(batch, hierarchy=None)
        joined = batch if waiting is None else ImageFeatures.concatenate([waiting, batch])
        whole = len(joined) - len(joined) % size
        for start in range(0, whole, size):
            yield joined[start : start + size]
        waiting = joined[whole:] if whole < len(joined) else None
    if waiting is not None:
        yield waiting


def _columns(encoders: Scorer, images: ImageFeatures, texts: TextFeatures) -> dict[str, Tensor]:
    if isinstance(encoders, BlendedScore):
        return encoders.score_columns(images, texts)
    return {"score": encoders.score(images, texts)}
