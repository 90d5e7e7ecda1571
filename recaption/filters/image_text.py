"""How well a caption fits its image, by an open_clip model that the user gives by path.

The only filter that looks at the image. torch and open_clip are imported when a score is asked
for, so that a run without it needs neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recaption.common.config import ConfigError, UserError, check_at_least

if TYPE_CHECKING:
    from PIL import Image


@dataclass
class ImageTextConfig:
    #: An architecture of open_clip, such as ViT-B-32; empty for no score.
    model: str = ""
    #: The path of its weights: safetensors, or a checkpoint that torch reads with weights_only.
    weights: str = ""
    #: Captions whose cosine similarity with their image is smaller are rejected.
    min_score: float = 0.2
    #: Images that are scored at once.
    batch_size: int = 64
    #: Where the model runs: `cpu`, `cuda`, `cuda:1`.
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_at_least(1, {"filters.image_text.batch_size": self.batch_size})
        if not -1 <= self.min_score <= 1:
            raise ConfigError(f"filters.image_text.min_score={self.min_score}: it must be -1 to 1")
        if bool(self.model) != bool(self.weights):
            raise ConfigError(
                "filters.image_text needs both model=ARCHITECTURE and weights=PATH, or neither"
            )


class ImageTextScorer:
    """Loads the model once.

    Raises:
        UserError: open_clip is not installed, does not know the architecture or cannot read the
            weights into it.
    """

    def __init__(self, config: ImageTextConfig) -> None:
        self.config = config
        if not Path(config.weights).is_file():
            raise UserError(f"filters.image_text.weights={config.weights}: no such file")
        try:
            import open_clip
            import torch
        except ImportError as error:
            raise UserError(
                f"filters.image_text needs {error.name}: pip install 'canopy-vlp[image-text]'"
            ) from None
        self._torch = torch
        known = open_clip.list_models()
        if config.model not in known:
            raise UserError(
                f"filters.image_text.model={config.model}: open_clip knows {', '.join(known[:5])} "
                f"and {len(known) - 5} others (open_clip.list_models())"
            )
        try:
            model, _, preprocess = open_clip.create_model_and_transforms(
                config.model,
                pretrained=config.weights,
                device=config.device,
                pretrained_text=False,
                weights_only=True,
            )
            tokenizer = open_clip.get_tokenizer(config.model)
        except Exception as error:  # torch, safetensors, huggingface_hub: all have their own
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(
                f"filters.image_text: {config.weights} cannot be loaded as {config.model}: {reason}"
            ) from None
        self._model, self._preprocess, self._tokenizer = model.eval(), preprocess, tokenizer

    def score(self, images: Sequence[Image.Image], captions: Sequence[str]) -> list[float]:
        """The cosine similarity, -1 to 1, of each image with its caption.

        Of a long caption the first tokens that the model has places for count (77 as a rule).
        Rounded to three digits: what stands beside in a batch changes the last ones.
        """
        scores: list[float] = []
        for start in range(0, len(captions), self.config.batch_size):
            batch = slice(start, start + self.config.batch_size)
            scores += self._score_batch(images[batch], captions[batch])
        return scores

    def reject_reason(self, score: float) -> str | None:
        """``image-text: detail`` of a score that is too small, else None."""
        if score >= self.config.min_score:
            return None
        return f"image-text: {score:.3f} by {self.config.model}, below {self.config.min_score}"

    def _score_batch(self, images: Sequence[Image.Image], captions: Sequence[str]) -> list[float]:
        torch: Any = self._torch
        pixels = torch.stack([self._preprocess(image.convert("RGB")) for image in images])
        tokens = self._tokenizer(list(captions))
        with torch.inference_mode():
            seen = self._model.encode_image(pixels.to(self.config.device), normalize=True)
            read = self._model.encode_text(tokens.to(self.config.device), normalize=True)
            scores: list[float] = (seen.float() * read.float()).sum(dim=1).cpu().tolist()
        return [round(score, 3) for score in scores]
