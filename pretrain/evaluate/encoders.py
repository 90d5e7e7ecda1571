"""What a benchmark asks of a model, whichever library it comes from."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from PIL import Image
from torch import Tensor

from pretrain.models.features import ImageFeatures, TextFeatures
from recaption.common.config import UserError


class NoMapsError(UserError):
    """A task needs maps of what sentences say, and the model makes none."""


class Encoders(Protocol):
    """A pair of encoders with the score that they were trained to retrieve by.

    Features stay on the device of the encoders; what is given and taken one by one (pictures,
    texts) is ordinary Python.
    """

    #: What the model is called in tables.
    name: str

    def preprocess(self, image: Image.Image) -> Tensor:
        """(3, size, size) normalised pixels of an upright RGB picture."""
        ...

    @property
    def image_size(self) -> int:
        """Side of the square that the model sees, pixels."""
        ...

    def to_picture(self, pixels: Tensor) -> Tensor:
        """(3, size, size) uint8: what `preprocess` made of a picture, to look at."""
        ...

    def encode_images(self, pixels: Sequence[Tensor]) -> ImageFeatures:
        """Features of one batch of images, each as `preprocess` gives it."""
        ...

    def encode_captions(self, captions: Sequence[str]) -> TextFeatures:
        """Features of one batch of captions of any length, read as the model reads captions."""
        ...

    def encode_prompts(self, prompts: Sequence[str]) -> TextFeatures:
        """The same of prompts, each of one sentence ("a photo of a St. Bernard.")."""
        ...

    def encode_sentences(self, sentences: Sequence[str]) -> Tensor:
        """(N, D) features of single sentences or class prompts, not normalised."""
        ...

    def score(self, images: ImageFeatures, texts: TextFeatures) -> Tensor:
        """(num_images, num_texts) retrieval scores, higher is better."""
        ...

    def localise(self, images: ImageFeatures, sentences: Tensor) -> Tensor | None:
        """Relevance of each image's segments or patches to its sentences, as pixel maps.

        Args:
            images: of B images.
            sentences: (B, Q, D), from `encode_sentences`.

        Returns:
            (B, Q, size, size) maps in the pixels of `preprocess`; None: the model makes none.
        """
        ...

    def compare_places(self, images: ImageFeatures, sentences: Tensor) -> Tensor | None:
        """As `localise`, but cosines, which can be compared between sentences at one place."""
        ...

    def is_cut(self, caption: str) -> bool:
        """Whether the end of a caption is not read, as it is longer than the context."""
        ...

    def describe(self) -> dict[str, Any]:
        """Source and checksum of the weights, context length, image size: for `results.json`."""
        ...


def features_of_blank(encoders: Encoders) -> ImageFeatures:
    """Features of a white picture: what a model can do shows before a set is read."""
    return encoders.encode_images([encoders.preprocess(Image.new("RGB", (8, 8), "white"))])


class Scorer(Protocol):
    """What scoring asks of encoders, where features are there already."""

    def score(self, images: ImageFeatures, texts: TextFeatures) -> Tensor: ...

    def is_cut(self, caption: str) -> bool: ...


def share_cut(encoders: Scorer, texts: Sequence[str]) -> float:
    """Share of the texts whose end is not read, as they are longer than the context."""
    return sum(map(encoders.is_cut, texts)) / len(texts)


@runtime_checkable
class BlendedScore(Protocol):
    """Encoders whose retrieval score is made from others, which stand beside it in tables."""

    def score_columns(self, images: ImageFeatures, texts: TextFeatures) -> dict[str, Tensor]:
        """(num_images, num_texts) by name, that of `Encoders.score` first.

        `texts` must be all texts of the set: the best few of an image may be chosen among them.
        """
        ...
