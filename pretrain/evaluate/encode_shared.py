"""Whole sets through any encoders; ranks that evaluate together share the work.

Of texts ranks take batches in turn, and every rank has all features afterwards; of images a rank
has its own. What stands in a batch does not depend on the number of ranks, as an encoder may round
by it.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from torch import Tensor

from pretrain.evaluate.benchmarks.base import Picture
from pretrain.evaluate.encode import batches
from pretrain.evaluate.encoders import Encoders
from pretrain.evaluate.reading import read_ahead
from pretrain.evaluate.sharing import join_tensors, join_texts, own_items, rank_and_size
from pretrain.evaluate.streamed import TILE
from pretrain.models.features import ImageFeatures, TextFeatures
from recaption.common.progress import Progress

T = TypeVar("T")


def encode_captions(texts: Sequence[str], encoders: Encoders, batch_size: int) -> TextFeatures:
    """Features of all captions, in their order."""
    return join_texts(_encode_own(texts, "texts", encoders.encode_captions, batch_size))


def encode_sentences(sentences: Sequence[str], encoders: Encoders, batch_size: int) -> Tensor:
    """(N, D) features of all sentences, in their order."""
    return join_tensors(_encode_own(sentences, "sentences", encoders.encode_sentences, batch_size))


def _encode_own(
    texts: Sequence[str], unit: str, encode: Callable[[Sequence[str]], T], batch_size: int
) -> list[T]:
    """What `encode` makes of each of this rank's batches."""
    own = own_items(len(texts), batch_size, *rank_and_size())
    features = []
    with Progress(len(own), unit, "encode") as progress:
        for batch in batches([texts[place] for place in own], batch_size):
            features.append(encode(batch))
            progress.advance(len(batch))
    return features


def encode_images(
    pictures: Sequence[Picture], encoders: Encoders, batch_size: int
) -> Iterator[ImageFeatures]:
    """Features batch by batch; the next pictures are read meanwhile.

    A batch ends where a tile of scores does: it is the same for any number of ranks.

    Args:
        pictures: those of this rank, dealt out by tiles.
    """
    with Progress(len(pictures), "images", "encode and score") as progress:
        pixels = read_ahead(pictures, encoders.preprocess)
        for start in range(0, len(pictures), TILE):
            tile = islice(pixels, min(TILE, len(pictures) - start))
            for batch in batches(tile, batch_size):
                yield encoders.encode_images(batch)
                progress.advance(len(batch))
