"""Encoders whose figures can be computed by hand: pictures and texts are how red, green and blue
they are.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from pretrain.models.features import ImageFeatures, TextFeatures

RGB = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


class ColourEncoders:
    """A picture is its mean colour and the colours of its 8 x 8 pixels; a text is the colours that
    it names, or white light. The context is eight words.
    """

    name = "colours"
    image_size = 8

    def preprocess(self, image: Image.Image) -> Tensor:
        """The central square, as CLIP's preprocessing."""
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.crop((left, top, left + side, top + side))
        pixels = np.array(square.resize((self.image_size, self.image_size), Image.Resampling.BOX))
        return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255

    def to_picture(self, pixels: Tensor) -> Tensor:
        return (pixels * 255).round().to(torch.uint8)

    def encode_images(self, pixels: Sequence[Tensor]) -> ImageFeatures:
        tokens = torch.stack(list(pixels)).flatten(2).transpose(1, 2)
        return ImageFeatures(tokens.mean(dim=1), tokens)

    def encode_captions(self, captions: Sequence[str]) -> TextFeatures:
        return TextFeatures(self.encode_sentences(captions))

    def encode_prompts(self, prompts: Sequence[str]) -> TextFeatures:
        return self.encode_captions(prompts)

    def encode_sentences(self, sentences: Sequence[str]) -> Tensor:
        rows = []
        for sentence in sentences:
            named = [RGB[word] for word in sentence.lower().strip(".").split() if word in RGB]
            rows.append(torch.tensor(named or [(255, 255, 255)]).sum(dim=0).float())
        return torch.stack(rows)

    def score(self, images: ImageFeatures, texts: TextFeatures) -> Tensor:
        assert texts.whole is not None
        return F.normalize(images.pooled, dim=1) @ F.normalize(texts.whole, dim=1).T

    def localise(self, images: ImageFeatures, sentences: Tensor) -> Tensor | None:
        return self.compare_places(images, sentences).flatten(2).softmax(dim=2).unflatten(2, (8, 8))

    def compare_places(self, images: ImageFeatures, sentences: Tensor) -> Tensor:
        assert images.tokens is not None
        cosines = F.normalize(sentences, dim=2) @ F.normalize(images.tokens, dim=2).transpose(1, 2)
        return cosines.unflatten(2, (self.image_size, self.image_size))

    def is_cut(self, caption: str) -> bool:
        return len(caption.split()) > 8

    def describe(self) -> dict[str, Any]:
        return {}


def write_picture(path: Path, *stripes: str, size: tuple[int, int] = (16, 16)) -> None:
    """A PNG (under whatever name) of upright stripes of one width in these colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    pixels = np.zeros((height, width, 3), np.uint8)
    for number, colour in enumerate(stripes):
        left, right = (width * n // len(stripes) for n in (number, number + 1))
        pixels[:, left:right] = RGB[colour]
    Image.fromarray(pixels).save(path, "PNG")
