"""Whole sets through the encoders, batch by batch, without gradients."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor

from pretrain.data.captions import join_sentences
from pretrain.inference import InferenceModel
from pretrain.models.features import ImageFeatures, TextFeatures

T = TypeVar("T")


def best_device() -> torch.device:
    """The GPU, where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_of(inference: InferenceModel) -> torch.device:
    """Where the encoders are."""
    return next(inference.model.parameters()).device


@torch.inference_mode()
def encode_images(
    inference: InferenceModel,
    pixels: Sequence[Tensor],
    with_hierarchy: bool = False,
    with_tokens: bool = True,
) -> ImageFeatures:
    """Features of one batch of images, each (3, H, W) as `inference.preprocess` gives it."""
    images = torch.stack(list(pixels)).to(device_of(inference))
    return inference.model.encode_image(images, with_hierarchy, with_tokens)


@torch.inference_mode()
def encode_texts(
    inference: InferenceModel, texts: Sequence[Sequence[str]], batch_size: int
) -> TextFeatures:
    """Features of the captions of len(texts) images, each given as the same number K of texts."""
    features = []
    for batch in batches(texts, batch_size):
        packed = inference.tokenizer.pack(batch).to(device_of(inference))
        features.append(inference.model.encode_text(packed))
    return TextFeatures.concatenate(features)


def encode_sentences(
    inference: InferenceModel, sentences: Sequence[str], batch_size: int
) -> Tensor:
    """(N, D) features of single sentences, as queries for `Objective.localise`.

    A model that reads captions in parts reads a sentence as a part; one that reads them whole
    reads it as a caption. Full stops at its end are taken off, as in training.
    """
    captions = inference.config.data.captions
    sentences = [join_sentences([sentence]) for sentence in sentences]
    if captions.name != "parts":
        whole = encode_texts(inference, [[s] for s in sentences], batch_size).whole
        assert whole is not None
        return whole
    # A row must be full, since the whole text is made of it; the last one repeats its sentences.
    num_parts = captions.parts.num_parts
    rows = [list(row) for row in batches(sentences, num_parts)]
    rows[-1] = [rows[-1][index % len(rows[-1])] for index in range(num_parts)]
    parts = encode_texts(inference, rows, batch_size).parts
    assert parts is not None
    return parts.flatten(0, 1)[: len(sentences)]


def batches(items: Sequence[T] | Iterator[T], size: int) -> Iterator[list[T]]:
    """Consecutive lists of `size` items; the last may be shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
