"""Any model of open_clip, with weights by path, as a benchmark sees it: to compare with."""

import pickle
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip import factory
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F

from pretrain.evaluate.maps import pixel_maps
from pretrain.evaluate.open_clip_patches import encode_with_patches, has_patches
from pretrain.models.features import ImageFeatures, TextFeatures
from recaption.common.config import UserError, nearest_name
from recaption.common.files import read_json, sha256_file

PREFIX = "open_clip:"


class OpenClipEncoders:
    """Cosines of whole images and whole captions, as open_clip's own evaluation takes them.

    Pictures are prepared as the model's configuration says (for CLIP: the central square).
    """

    def __init__(self, model: nn.Module, tokenizer: Any, architecture: str, weights: Path) -> None:
        self.name = f"{architecture} ({weights.stem})"
        self._model: Any = model.eval()
        self._tokenizer = tokenizer
        self._architecture = architecture
        self._weights = weights
        self._preprocess = _preprocessing(self._model)

    def preprocess(self, image: Image.Image) -> Tensor:
        pixels: Tensor = self._preprocess(image)
        return pixels

    @torch.inference_mode()
    def encode_images(self, pixels: Sequence[Tensor]) -> ImageFeatures:
        batch = torch.stack(list(pixels)).to(self._device)
        if has_patches(self._model):
            return ImageFeatures(*encode_with_patches(self._model, batch))
        return ImageFeatures(self._model.encode_image(batch))

    @torch.inference_mode()
    def encode_captions(self, captions: Sequence[str]) -> TextFeatures:
        features = self._model.encode_text(self._tokenizer(list(captions)).to(self._device))
        return TextFeatures(whole=features, parts=features[:, None])

    def encode_sentences(self, sentences: Sequence[str]) -> Tensor:
        whole = self.encode_captions(sentences).whole
        assert whole is not None
        return whole

    @torch.inference_mode()
    def score(self, images: ImageFeatures, texts: TextFeatures) -> Tensor:
        assert texts.whole is not None
        return F.normalize(images.pooled, dim=1) @ F.normalize(texts.whole, dim=1).T

    @torch.inference_mode()
    def localise(self, images: ImageFeatures, sentences: Tensor) -> Tensor | None:
        """Softmax over the patches of their scaled cosine with the sentence."""
        if images.tokens is None:
            return None
        relevance = (self._model.logit_scale.exp() * _cosines(images.tokens, sentences)).softmax(2)
        return pixel_maps(relevance, None, self._size)

    def compare_places(self, images: ImageFeatures, sentences: Tensor) -> Tensor | None:
        if images.tokens is None:
            return None
        return pixel_maps(_cosines(images.tokens, sentences), None, self._size)

    def is_cut(self, caption: str) -> bool:
        """Whether the row of tokens would be longer than the context, were it as long as it likes.

        The tokenizer is asked for one token more than the model reads: if that is used, it is cut.
        """
        row = self._tokenizer([caption], context_length=self._tokenizer.context_length + 1)[0]
        pad = getattr(self._tokenizer, "pad_token_id", None) or 0
        return bool(row[-1] != pad)

    def describe(self) -> dict[str, Any]:
        return {
            "library": f"open_clip {open_clip.__version__}",
            "architecture": self._architecture,
            "weights": {"file": self._weights.name, "sha256": sha256_file(self._weights)},
            "image_size": self._model.visual.image_size,
            "context_length": self._tokenizer.context_length,
        }

    @property
    def _size(self) -> int:
        """Side of the pictures, where there are patches."""
        return int(self._model.visual.image_size[0])

    @property
    def _device(self) -> torch.device:
        return next(self._model.parameters()).device


def load_open_clip(model: str, weights: Path, device: torch.device) -> OpenClipEncoders:
    """Builds `model`, a name that open_clip knows or a JSON file of its configuration.

    Nothing is fetched, and no code of the file of weights is run.

    Raises:
        UserError: an unknown model, weights that are not there, damaged, or of another model.
    """
    architecture = model
    if model.endswith(".json"):
        path = Path(model)
        if not path.is_file():
            raise UserError(f"model={PREFIX}{model}: there is no such file")
        if not {"embed_dim", "vision_cfg", "text_cfg"} <= set(read_json(path)):
            raise UserError(f"{path} is no model configuration of open_clip")
        factory.add_model_config(path)
        architecture = path.stem
    elif model not in open_clip.list_models():
        near = nearest_name(model, open_clip.list_models())
        hint = f": did you mean {near}?" if near else "; open_clip.list_models() names them"
        raise UserError(f"model={PREFIX}{model}: open_clip has no such model{hint}")
    if not weights.is_file():
        raise UserError(f"checkpoint={weights}: there is no such file of weights")
    try:
        tokenizer = open_clip.get_tokenizer(architecture)
    except OSError as error:
        raise UserError(
            f"the tokenizer of {architecture} is not on this machine: {error}"
        ) from None
    built = open_clip.create_model(
        architecture, load_weights=False, pretrained_image=False, pretrained_text=False
    )
    try:
        open_clip.load_checkpoint(built, str(weights))
    except (SafetensorError, pickle.UnpicklingError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else "it ends too early"
        raise UserError(f"{weights} cannot be read as weights: {reason}") from None
    except (RuntimeError, KeyError) as error:
        details = "; ".join(line.strip() for line in str(error).splitlines()[:3])
        raise UserError(f"{weights} does not hold weights of {architecture}: {details}") from None
    return OpenClipEncoders(built.to(device), tokenizer, architecture, weights)


def _preprocessing(model: Any) -> Any:
    known = {field.name for field in fields(PreprocessCfg)}
    chosen = {k: v for k, v in model.visual.preprocess_cfg.items() if k in known}
    return image_transform_v2(PreprocessCfg(**chosen), is_train=False)


def _cosines(patches: Tensor, sentences: Tensor) -> Tensor:
    """(B, Q, N) of patches (B, N, D) and sentences (B, Q, D)."""
    return F.normalize(sentences, dim=2) @ F.normalize(patches, dim=2).transpose(1, 2)
