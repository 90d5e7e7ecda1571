"""SigLIP: every pair of an image and a caption is a yes or a no."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretrain.distributed.exchange import Exchange
from pretrain.models.features import ImageFeatures, TextFeatures
from pretrain.objectives.clip import ClipConfig, ClipObjective
from pretrain.objectives.comparison import DotProducts
from pretrain.objectives.ring import ring_sigmoid


@dataclass
class SiglipConfig(ClipConfig):
    """SigLIP's objective."""

    init_scale: float = 10.0  # inverse temperature at the start
    init_bias: float = -10.0  # of the logits, at the start; -log(batch size) is its fixed point


class SiglipObjective(ClipObjective):
    """ "Sigmoid Loss for Language Image Pre-Training" (Zhai et al.).

    Sum over the captions of all ranks of -log sigmoid(y (scale cos + bias)), mean over the images
    of this rank. Captions travel round the ring. Scores and localisation are CLIP's.
    """

    def __init__(self, config: SiglipConfig) -> None:
        super().__init__(config)
        self.bias = nn.Parameter(torch.tensor([config.init_bias]))

    def forward(
        self,
        image: ImageFeatures,
        text: TextFeatures,
        exchange: Exchange,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        assert text.whole is not None
        comparison = DotProducts(F.normalize(image.pooled, dim=1), self.scale, self.bias)
        texts = F.normalize(text.whole, dim=1).unsqueeze(1)
        return {"contrastive": ring_sigmoid(comparison, texts, exchange) / len(texts)}

    def diagnostics(self) -> dict[str, float]:
        return {"scale": self.scale.item(), "bias": self.bias.item()}
