"""Any model of open_clip, with weights by path, as a benchmark sees it: to compare with."""

import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.factory import load_state_dict
from open_clip.tokenizer import HFTokenizer
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional as F

from pretrain.data.transforms import denormalise
from pretrain.evaluate.maps import pixel_maps
from pretrain.evaluate.open_clip_architectures import (
    Architecture,
    Built,
    build,
    find_architecture,
    in_one_line,
)
from pretrain.evaluate.open_clip_patches import encode_with_patches, has_patches
from pretrain.models.features import ImageFeatures, TextFeatures
from recaption.common.config import UserError
from recaption.common.files import sha256_file

#: What `open_clip.load_checkpoint` raises at a damaged file, and at weights that it did not expect.
_DAMAGED = (SafetensorError, pickle.UnpicklingError, zipfile.BadZipFile, EOFError, OSError)
_NOT_ITS_WEIGHTS = (
    *(AssertionError, AttributeError, LookupError, RuntimeError),
    *(StopIteration, TypeError, ValueError),
)
#: The tensors that open_clip would stretch.
_POSITIONS = "positional_embedding"


class OpenClipEncoders:
    """Cosines of whole images and whole captions, as open_clip's own evaluation takes them.

    Pictures are prepared as the published weights, or the configuration, want them (for CLIP: the
    central square). A caption is read as it is written.
    """

    def __init__(self, built: Built, architecture: Architecture, weights: Path) -> None:
        self.name = f"{architecture.name} ({weights.stem})"
        self._model = built.model.eval()
        self._tokenizer = built.tokenizer
        self._preprocess = built.preprocess
        self._architecture = architecture
        self._weights = weights

    def preprocess(self, image: Image.Image) -> Tensor:
        pixels: Tensor = self._preprocess(image)
        return pixels

    @property
    def image_size(self) -> int:
        size = self._model.visual.image_size
        return int(size if isinstance(size, int) else size[0])

    def to_picture(self, pixels: Tensor) -> Tensor:
        used = self._model.visual.preprocess_cfg
        return denormalise(pixels, used["mean"], used["std"])

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

    def encode_prompts(self, prompts: Sequence[str]) -> TextFeatures:
        return self.encode_captions(prompts)

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
        return pixel_maps(relevance, None, self.image_size)

    def compare_places(self, images: ImageFeatures, sentences: Tensor) -> Tensor | None:
        if images.tokens is None:
            return None
        return pixel_maps(_cosines(images.tokens, sentences), None, self.image_size)

    def is_cut(self, caption: str) -> bool:
        return num_tokens(self._tokenizer, caption) > int(self._tokenizer.context_length)

    def describe(self) -> dict[str, Any]:
        used, config = self._model.visual.preprocess_cfg, self._architecture.config
        return {
            "library": f"open_clip {open_clip.__version__}",
            "architecture": self._architecture.name,
            "config": None if config is None else _describe_file(config),
            "tag": self._architecture.tag or None,
            "weights": _describe_file(self._weights),
            "image_size": self._model.visual.image_size,
            "preprocess": {k: used[k] for k in ("mean", "std", "interpolation", "resize_mode")},
            "quick_gelu": self._architecture.quick_gelu,
            "context_length": self._tokenizer.context_length,
            "captions": "as_written",
        }

    @property
    def _device(self) -> torch.device:
        return next(self._model.parameters()).device


def load_open_clip(
    model: str, weights: Path, device: torch.device, tag: str = ""
) -> OpenClipEncoders:
    """Builds `model`, a name that open_clip knows or a JSON file of its configuration.

    Nothing is fetched, and no code of the file of weights is run.

    Args:
        tag: the published weights whose preparation of pictures is used; see `find_architecture`.

    Raises:
        UserError: an unknown model, weights that are not there, damaged, or of another model.
    """
    architecture = find_architecture(model, tag)
    if not weights.is_file():
        raise UserError(f"checkpoint={weights}: there is no such file of weights")
    built = build(architecture)
    try:
        _check_lengths(built.model, weights)
        open_clip.load_checkpoint(built.model, str(weights))
    except _DAMAGED as error:
        reason = in_one_line(error) if str(error) else "it ends too early"
        raise UserError(f"{weights} cannot be read as weights: {reason}") from None
    except _NOT_ITS_WEIGHTS as error:
        if "TorchScript" in str(error):
            raise UserError(
                f"{weights} is a TorchScript archive, as OpenAI published CLIP: make a run of it, "
                f"`python -m pretrain import method=openai weights={weights} output=RUN`, and "
                "evaluate checkpoint=RUN"
            ) from None
        raise UserError(
            f"{weights} does not hold weights of {architecture.name}: {_mismatch(error)}"
        ) from None
    built.model.to(device)
    return OpenClipEncoders(built, architecture, weights)


def num_tokens(tokenizer: Any, caption: str) -> int:
    """Tokens of a caption, start and end among them, were there no limit."""
    if not isinstance(tokenizer, HFTokenizer):
        return len(tokenizer.encode(caption)) + 2
    # In the mode `clips` open_clip adds start, end and class token by itself.
    is_clips = tokenizer.tokenizer_mode == "clips"
    found = tokenizer.tokenizer(
        tokenizer.clean_fn(caption), add_special_tokens=not is_clips, verbose=False
    )
    return len(found.input_ids) + 3 * is_clips


def _check_lengths(model: Any, weights: Path) -> None:
    """open_clip stretches the positions of other image sizes and contexts without a word, and a
    model that was not trained for that gives other figures.

    Raises:
        ValueError: the file's positions are not as many as the model's.
    """
    if weights.suffix in (".npz", ".npy"):
        return  # of big_vision, whose reader says so itself
    own = {name: tensor for name, tensor in model.state_dict().items() if _POSITIONS in name}
    for name, tensor in load_state_dict(str(weights)).items():
        expected = own.get(name, own.get(f"text.{name}"))
        if expected is not None and len(tensor) != len(expected):
            raise ValueError(
                f"{name} is of {len(tensor)} positions, the model's of {len(expected)}: another "
                "image size, patch size or context length"
            )


def _mismatch(error: Exception) -> str:
    if isinstance(error, StopIteration):
        return "it is empty"
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    if isinstance(error, AttributeError | TypeError):
        return f"it holds no tensors by name, or those of another kind ({in_one_line(error)})"
    return in_one_line(error)


def _describe_file(path: Path) -> dict[str, str]:
    return {"file": path.name, "sha256": sha256_file(path)}


def _cosines(patches: Tensor, sentences: Tensor) -> Tensor:
    """(B, Q, N) of patches (B, N, D) and sentences (B, Q, D)."""
    return F.normalize(sentences, dim=2) @ F.normalize(patches, dim=2).transpose(1, 2)
