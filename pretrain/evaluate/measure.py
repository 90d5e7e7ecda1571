"""Encodes a set once, and scores retrieval and localisation from what comes out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from pretrain.evaluate.encode import batches, encode_images, encode_sentences, encode_texts
from pretrain.evaluate.examples import Example, read_pictures
from pretrain.evaluate.localisation import MapScore, score_map
from pretrain.evaluate.maps import pixel_maps
from pretrain.evaluate.naming import Named
from pretrain.evaluate.scores import score_columns
from pretrain.inference import InferenceModel
from pretrain.models.features import ImageFeatures
from recaption.common.progress import Progress

_SCORE_BLOCK = 256  # images, and texts, whose pairs are scored at once


@dataclass(frozen=True)
class Query:
    """A sentence that names one thing of its example, and one of the set that names another."""

    named: Named
    other: str


@dataclass(frozen=True)
class Measurement:
    scores: dict[str, Tensor]  # column -> (num_images, num_texts); the retrieval score comes first
    map_scores: list[list[MapScore]]  # one a query of each example


@torch.inference_mode()
def measure(
    inference: InferenceModel,
    folder: Path,
    examples: Sequence[Example],
    queries: Sequence[Sequence[Query]],
    batch_size: int,
    alpha: float | None = None,
) -> Measurement:
    """Scores every example's image with every example's text, and the map of every query."""
    texts = encode_texts(inference, [example.texts for example in examples], batch_size)
    features = encode_queries(inference, queries, batch_size)
    images: list[ImageFeatures] = []
    map_scores: list[list[MapScore]] = [[] for _ in examples]
    with Progress(len(examples), "images", "evaluate") as progress:
        for batch in batches(read_pictures(folder, examples), batch_size):
            positions = [position for position, _ in batch]
            pixels = [inference.preprocess(picture) for _, picture in batch]
            wanted = any(queries[position] for position in positions)
            encoded = encode_images(inference, pixels, with_hierarchy=wanted)
            for row, position in enumerate(positions):
                if queries[position]:
                    heat, other = query_maps(inference, encoded[row : row + 1], features[position])
                    map_scores[position] = [
                        score_map(heat[number], other[number], query.named.boxes)
                        for number, query in enumerate(queries[position])
                    ]
            images.append(replace(encoded, hierarchy=None))
            progress.advance(len(batch))
    encoded = ImageFeatures.concatenate(images)
    scores = score_columns(inference.objective, encoded, texts, _SCORE_BLOCK, alpha)
    return Measurement(scores, map_scores)


def pair_with_others(named: Sequence[Sequence[Named]]) -> list[list[Query]]:
    """Gives every sentence one of another example that names another thing, the next such one.

    A sentence is left out where all others name the same thing as it does.
    """
    every = [(index, sentence) for index, group in enumerate(named) for sentence in group]
    queries: list[list[Query]] = [[] for _ in named]
    for position, (index, sentence) in enumerate(every):
        following = every[position + 1 :] + every[:position]
        other = next((s for i, s in following if i != index and s.name != sentence.name), None)
        if other is not None:
            queries[index].append(Query(sentence, other.sentence))
    return queries


def encode_queries(
    inference: InferenceModel, queries: Sequence[Sequence[Query]], batch_size: int
) -> list[Tensor]:
    """For each example (2, Q, D): the features of its sentences, and of the others beside them."""
    every = [query for group in queries for query in group]
    if not every:
        return [torch.empty(0)] * len(queries)
    sentences = [query.named.sentence for query in every] + [query.other for query in every]
    features = encode_sentences(inference, sentences, batch_size).unflatten(0, (2, len(every)))
    return list(features.split([len(group) for group in queries], dim=1))


@torch.inference_mode()
def query_maps(
    inference: InferenceModel, image: ImageFeatures, features: Tensor
) -> tuple[Tensor, Tensor]:
    """Maps (Q, H, W) of one image's sentences, and of the others, on the CPU.

    The image must have been encoded with its hierarchy, if it has one.
    """
    relevance = inference.objective.localise(image, features.flatten(0, 1)[None])
    size = inference.config.model.image.size
    maps = pixel_maps(relevance, image.hierarchy, size)[0].float().cpu()
    return tuple(maps.unflatten(0, (2, -1)))  # type: ignore[return-value]
