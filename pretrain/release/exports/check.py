"""Inputs on which an export is compared with the model that it was made from."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pretrain.data.captions import texts_of_caption
from pretrain.evaluate.encode import encode_images, encode_texts
from pretrain.inference import InferenceModel
from pretrain.release.sample import CAPTIONS

#: Of features of length 1.
TOLERANCE = 1e-5


def sample_pictures() -> list[Image.Image]:
    """Wide, high and square, larger and smaller than models see."""
    sizes = ((300, 200), (97, 131), (64, 64), (500, 375), (31, 40))
    rng = np.random.default_rng(0)
    small = [Image.fromarray(rng.integers(0, 255, (6, 8, 3), np.uint8)) for _ in sizes]
    return [picture.resize(size) for picture, size in zip(small, sizes, strict=True)]


def sample_texts(inference: InferenceModel) -> list[list[str]]:
    """The texts of each of a few captions, as the model reads them."""
    captions = inference.config.data.captions
    return [texts_of_caption(caption, captions) for caption in CAPTIONS]


def image_features(inference: InferenceModel) -> Tensor:
    """(B, D) of `sample_pictures`, of length 1."""
    pixels = [inference.preprocess(picture) for picture in sample_pictures()]
    return F.normalize(encode_images(inference, pixels).pooled, dim=1)


def text_features(inference: InferenceModel) -> Tensor:
    """(B, D) of `sample_texts`, of length 1."""
    texts = sample_texts(inference)
    whole = encode_texts(inference, texts, len(texts)).whole
    assert whole is not None
    return F.normalize(whole, dim=1)


def check_equal(what: str, found: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    """Raises RuntimeError where an export gives something else than its original."""
    if found.shape != expected.shape:
        raise RuntimeError(
            f"the export gives {what} of the shape {list(found.shape)}, the model of "
            f"{list(expected.shape)}"
        )
    difference = (found.double() - expected.double()).abs().max().item()
    if not difference <= tolerance:
        raise RuntimeError(
            f"the export gives other {what} than the model: they differ by up to {difference:.2g}"
        )


def pad(texts: list[list[int]], length: int) -> Tensor:
    """Tokens of texts -> (number of texts, length) int64, 0 behind each text's end."""
    rows = torch.zeros(len(texts), length, dtype=torch.int64)
    for row, tokens in zip(rows, texts, strict=True):
        row[: len(tokens)] = torch.tensor(tokens)
    return rows
