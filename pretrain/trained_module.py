"""What a run trains: encoders, and an objective that reads their features."""

import torch
from torch import Tensor, nn

from pretrain.config import PretrainConfig
from pretrain.data.captions import num_texts
from pretrain.data.tokens import PackedTexts
from pretrain.models.dual import DualEncoder
from pretrain.models.features import ImageFeatures, TextFeatures
from pretrain.models.registry import build_model
from pretrain.objectives.base import Objective
from pretrain.objectives.registry import build_objective, check_features
from pretrain.ops.recompute import set_recompute


class TrainedModule(nn.Module):
    """The encoders and the objective's own parameters: all that is trained and saved.

    Its forward is that of the encoders. The objective sees the features of the whole batch, of
    however many pieces (`pretrain.distributed.microbatch`).

    Args:
        precision: of the encoders, fp32 or bf16 (autocast); features, and what is made of them, are
            always in fp32.
    """

    def __init__(self, model: DualEncoder, objective: Objective, precision: str = "fp32") -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.use_bfloat16 = precision == "bf16"
        self.with_tokens = "image.tokens" in objective.needs

    def forward(
        self, images: Tensor, texts: PackedTexts, stem_features: Tensor | None = None
    ) -> tuple[ImageFeatures, TextFeatures]:
        """Features of a batch: images (B, 3, H, W) normalised, K texts an image.

        Args:
            images: as above.
            texts: as above.
            stem_features: what `stem_features` gave of these images, if it was asked before.
        """
        with self._precision(images):
            image = self.model.encode_image(
                images, with_tokens=self.with_tokens, stem_features=stem_features
            )
            text = self.model.encode_text(texts)
        return image.map(Tensor.float), text.map(Tensor.float)

    def stem_features(self, images: Tensor) -> Tensor | None:
        """What must be computed of a rank's whole batch at once, for it is normalised together."""
        with self._precision(images):
            return self.model.stem_features(images)

    def stem_parameters(self) -> list[nn.Parameter]:
        """The weights behind `stem_features`."""
        stem = getattr(self.model.image, "stem", None)
        return [] if stem is None else [p for p in stem.parameters() if p.requires_grad]

    def compile_towers(self) -> None:
        """Hands both towers to torch.compile; what they compute stays the same."""
        self.model.image.compile()
        self.model.part_text.compile(dynamic=True)

    def _precision(self, images: Tensor) -> torch.autocast:
        return torch.autocast(images.device.type, torch.bfloat16, enabled=self.use_bfloat16)


def build_module(config: PretrainConfig) -> TrainedModule:
    """What the run trains, with fresh weights, drawn from torch's default generator."""
    model = build_model(config.model)
    set_recompute(model, config.train.recompute_blocks)
    objective = build_objective(config.objective, config.model.embed_dim)
    check_features(objective, model, num_texts(config.data.captions))
    return TrainedModule(model, objective, config.engine.precision)
