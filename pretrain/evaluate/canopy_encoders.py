"""Canopy's own models as a benchmark sees them."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from pretrain.data.captions import evaluation_texts, texts_of_caption
from pretrain.data.transforms import IMAGE_MEAN, IMAGE_STD, denormalise
from pretrain.evaluate.encode import encode_images, encode_sentences, encode_texts
from pretrain.evaluate.maps import pixel_maps
from pretrain.evaluate.provenance import describe_weights
from pretrain.evaluate.rerank import reranked
from pretrain.evaluate.scores import resolve_alpha, score_matrix, with_alpha
from pretrain.inference import InferenceModel
from pretrain.models.features import ImageFeatures, TextFeatures
from pretrain.objectives.caft import CaftObjective
from recaption.common.config import UserError

_TEXTS = 2048  # captions scored at once; fixed, as other sizes may round otherwise


class CanopyEncoders:
    """A run, checkpoint or release, with the score of the objective that trained it.

    Captions are split into sentences as in the published evaluation (no sentence is dropped) and
    read as the model was trained to read them: in parts, or whole.

    Args:
        inference: on the device where it is to work.
        name: what it is called in tables.
        alpha: CAFT: share of the local score; None: as configured.
        num_candidates: CAFT: blend for the best few texts of an image only (`rerank`).

    Raises:
        UserError: `alpha` or `num_candidates` for another objective than CAFT's.
    """

    def __init__(
        self,
        inference: InferenceModel,
        name: str,
        alpha: float | None = None,
        num_candidates: int | None = None,
    ) -> None:
        self.inference = inference
        self.name = name
        self.alpha = resolve_alpha(inference.objective, alpha)
        self.num_candidates = num_candidates
        if num_candidates is not None and self.alpha is None:
            raise UserError(
                "num_candidates re-ranks by CAFT's blended score; this model is no CAFT"
            )

    def preprocess(self, image: Image.Image) -> Tensor:
        return self.inference.preprocess(image)

    @property
    def image_size(self) -> int:
        return self.inference.config.model.image.size

    def to_picture(self, pixels: Tensor) -> Tensor:
        return denormalise(pixels, IMAGE_MEAN, IMAGE_STD)

    def encode_images(self, pixels: Sequence[Tensor]) -> ImageFeatures:
        return encode_images(self.inference, pixels, with_hierarchy=True)

    def encode_captions(self, captions: Sequence[str]) -> TextFeatures:
        texts = [self.texts_of(caption) for caption in captions]
        return encode_texts(self.inference, texts, len(texts))

    def encode_prompts(self, prompts: Sequence[str]) -> TextFeatures:
        captions = self.inference.config.data.captions
        texts = [evaluation_texts({"": [prompt]}, captions, "") for prompt in prompts]
        return encode_texts(self.inference, texts, len(texts))

    def encode_sentences(self, sentences: Sequence[str]) -> Tensor:
        return encode_sentences(self.inference, sentences, len(sentences))

    def score(self, images: ImageFeatures, texts: TextFeatures) -> Tensor:
        return next(iter(self.score_columns(images, texts).values()))

    def score_columns(self, images: ImageFeatures, texts: TextFeatures) -> dict[str, Tensor]:
        """CAFT: the blend, and the two scores that it is made of."""
        objective = self.inference.objective
        if not isinstance(objective, CaftObjective) or self.alpha is None:
            return {"score": _all_texts(objective, images, texts)}
        whole = _all_texts(with_alpha(objective, 0.0), images, texts)
        if self.num_candidates is not None:
            best = reranked(objective, images, texts, whole, self.alpha, self.num_candidates)
            return {"re-ranked": best, "whole": whole}
        local = _all_texts(with_alpha(objective, 1.0), images, texts)
        return {
            "blended": (1 - self.alpha) * whole + self.alpha * local,
            "whole": whole,
            "local": local,
        }

    @torch.inference_mode()
    def localise(self, images: ImageFeatures, sentences: Tensor) -> Tensor | None:
        relevance = self.inference.objective.localise(images, sentences)
        return pixel_maps(relevance, images.hierarchy, self.image_size)

    @torch.inference_mode()
    def compare_places(self, images: ImageFeatures, sentences: Tensor) -> Tensor | None:
        cosines = self.inference.objective.token_cosines(images, sentences)
        return pixel_maps(cosines, images.hierarchy, self.image_size)

    def is_cut(self, caption: str) -> bool:
        return any(map(self.inference.tokenizer.is_cut, self.texts_of(caption)))

    def describe(self) -> dict[str, Any]:
        config = self.inference.config
        return {
            "library": "canopy",
            "weights": describe_weights(self.inference.weights),
            "objective": config.objective.name,
            "image_encoder": config.model.image.name,
            "image_size": config.model.image.size,
            "context_length": self.inference.tokenizer.context_length,
            "captions": config.data.captions.name,
            "alpha": self.alpha,
            "num_candidates": self.num_candidates,
        }

    def texts_of(self, caption: str) -> list[str]:
        """What the model reads of a caption: its parts, or the whole."""
        return texts_of_caption(caption, self.inference.config.data.captions, min_characters=1)


def _all_texts(objective: Any, images: ImageFeatures, texts: TextFeatures) -> Tensor:
    return score_matrix(objective, images, texts, _TEXTS)
