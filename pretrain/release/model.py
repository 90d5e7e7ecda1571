"""A released model: long captions and pictures in, features, scores and heat maps out."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from pretrain.data.transforms import seen_box
from pretrain.evaluate.encode import batches, encode_images, encode_sentences, encode_texts
from pretrain.evaluate.maps import normalised, pixel_maps
from pretrain.inference import InferenceModel, load_for_inference
from pretrain.models.features import ImageFeatures, TextFeatures
from pretrain.release.hub import SCHEME, fetch
from pretrain.release.inputs import listed, not_empty, read_captions, upright, warn_of_cut
from recaption.common.config import UserError
from recaption.common.files import below_home
from recaption.images import BadImageError, ImageConfig, decode_image

Picture = Image.Image | Path | str

_BATCH_SIZE = 32


class ReleasedModel:
    """Encoders and retrieval score behind four calls; on the CPU unless moved with `to`."""

    def __init__(self, inference: InferenceModel) -> None:
        self.inference = inference

    def to(self, device: torch.device | str) -> "ReleasedModel":
        self.inference.model.to(device)
        self.inference.objective.to(device)
        return self

    def encode_image(self, images: Picture | Sequence[Picture]) -> Tensor:
        """Pictures, or paths of pictures -> (B, D) whole-image features of length 1."""
        # Of each batch no more is kept: tokens take 200 times the memory.
        pooled = [encoded.pooled for encoded in self._image_features(listed(images), False)]
        return functional.normalize(torch.cat(pooled), dim=1)

    def encode_text(self, captions: str | Sequence[str]) -> Tensor:
        """Captions of any number of sentences -> (B, D) whole-caption features of length 1."""
        whole = self._text_features(listed(captions)).whole
        assert whole is not None
        return functional.normalize(whole, dim=1)

    @torch.inference_mode()
    def similarity(
        self, images: Picture | Sequence[Picture], captions: str | Sequence[str]
    ) -> Tensor:
        """(number of images, number of captions) retrieval scores, higher is better.

        It is the score that the objective retrieves by. For CAFT it also looks at what each part
        of a caption finds in the image, so it is more than the product of the two encodings.
        """
        objective = self.inference.objective
        texts = self._text_features(listed(captions))
        batches_encoded = self._image_features(listed(images), "image.tokens" in objective.needs)
        return torch.cat([objective.score(encoded, texts) for encoded in batches_encoded])

    @torch.inference_mode()
    def localise(self, image: Picture, sentence: str) -> NDArray[np.float32]:
        """Where the image shows what the sentence says: (height, width) of the picture, in [0, 1].

        What the model does not see, because it looks at the central square only, is 0.
        """
        picture = _open(image)
        pixels = [self.inference.preprocess(picture)]
        encoded = encode_images(self.inference, pixels, with_hierarchy=True)
        warn_of_cut([sentence], self.inference.tokenizer)
        query = encode_sentences(self.inference, [not_empty(sentence)], _BATCH_SIZE)
        relevance = self.inference.objective.localise(encoded, query[None])
        size = self.inference.config.model.image.size
        heat = normalised(pixel_maps(relevance, encoded.hierarchy, size))
        width, height = picture.size
        seen = seen_box(width, height, self.inference.config.data.image)
        left, right = round(seen[0] * width), round(seen[2] * width)
        top, bottom = round(seen[1] * height), round(seen[3] * height)
        enlarged = functional.interpolate(heat, (bottom - top, right - left), mode="nearest-exact")
        whole = np.zeros((height, width), dtype=np.float32)
        whole[top:bottom, left:right] = enlarged[0, 0].float().cpu().numpy()
        return whole

    def _image_features(
        self, images: Sequence[Picture], with_tokens: bool
    ) -> Iterator[ImageFeatures]:
        """Batch by batch; pictures are opened as they come."""
        for batch in batches(images, _BATCH_SIZE):
            pixels = [self.inference.preprocess(_open(image)) for image in batch]
            yield encode_images(self.inference, pixels, with_tokens=with_tokens)

    def _text_features(self, captions: Sequence[str]) -> TextFeatures:
        config = self.inference.config.data.captions
        texts = read_captions(captions, config, self.inference.tokenizer)
        return encode_texts(self.inference, texts, _BATCH_SIZE)


def load(
    source: Path | str, verify: bool | None = None, image_size: int | None = None
) -> ReleasedModel:
    """Opens a release (or a run, or a checkpoint) on the CPU; offline, but for names on a hub.

    Args:
        source: what `python -m pretrain release` wrote, or ``hf://OWNER/NAME[@REVISION]``.
        verify: None: the files of a release that are read here are compared with their checksums;
            True: all of its files are; False: none.
        image_size: side of the images in pixels, if not the one trained on.

    Raises:
        UserError: if it is no release, is damaged, was tampered with or cannot be fetched.
    """
    if str(source).startswith(SCHEME):
        folder = fetch(str(source), whole=verify is True)
    else:
        folder = below_home(source)
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder")
    return ReleasedModel(load_for_inference(folder, image_size, verify=verify))


def _open(picture: Picture) -> Image.Image:
    """Upright and within the pixel limit, as images were when the training shards were packed."""
    if not isinstance(picture, Path | str):
        return upright(picture)
    try:
        return decode_image(Path(picture).read_bytes(), ImageConfig()).image
    except (OSError, BadImageError) as error:
        raise UserError(f"{picture} cannot be opened: {error}") from None
