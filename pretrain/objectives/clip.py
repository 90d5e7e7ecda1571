"""CLIP: symmetric InfoNCE of whole images and whole captions."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretrain.distributed.exchange import Exchange
from pretrain.models.features import ImageFeatures, TextFeatures
from pretrain.objectives.base import Objective, bounded
from pretrain.objectives.comparison import DotProducts
from pretrain.objectives.ring import ring_infonce


@dataclass
class ClipConfig:
    """CLIP's objective."""

    init_scale: float = 1 / 0.07  # inverse temperature at the start
    max_scale: float = 100.0  # and at most


class ClipObjective(Objective):
    """ "Learning Transferable Visual Models From Natural Language Supervision" (Radford et al.).

    Each image among the captions of all ranks, each caption among the images of all ranks; the mean
    of the two cross entropies. Captions travel round the ring.
    """

    needs = ("image.pooled", "text.whole")

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.max_log_scale = math.log(config.max_scale)
        self.log_scale = nn.Parameter(torch.tensor([math.log(config.init_scale)]))

    @property
    def scale(self) -> Tensor:
        return bounded(self.log_scale, 0.0, self.max_log_scale).exp()

    def forward(
        self,
        image: ImageFeatures,
        text: TextFeatures,
        exchange: Exchange,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        assert text.whole is not None
        images, texts = F.normalize(image.pooled, dim=1), F.normalize(text.whole, dim=1)
        return {"contrastive": whole_infonce(images, texts, self.scale, exchange)}

    def score(self, image: ImageFeatures, text: TextFeatures) -> Tensor:
        assert text.whole is not None
        cosine = F.normalize(image.pooled, dim=1) @ F.normalize(text.whole, dim=1).T
        return self.scale * cosine

    def localise(self, image: ImageFeatures, queries: Tensor) -> Tensor:
        """Softmax over the tokens of their scaled cosine with the query."""
        return (self.scale * self.token_cosines(image, queries)).softmax(dim=2)

    def token_cosines(self, image: ImageFeatures, queries: Tensor) -> Tensor:
        assert image.tokens is not None
        return F.normalize(queries, dim=2) @ F.normalize(image.tokens, dim=2).transpose(1, 2)

    def diagnostics(self) -> dict[str, float]:
        return {"scale": self.scale.item()}


def whole_infonce(images: Tensor, texts: Tensor, scale: Tensor, exchange: Exchange) -> Tensor:
    """Mean of the cross entropies over the texts and over the images of all ranks.

    Args:
        images, texts: (B, D) of this rank, of length 1, row by row a true pair.
        scale: (1,) inverse temperature.
    """
    true = scale * (images * texts).sum(dim=1, keepdim=True)
    return ring_infonce(DotProducts(images, scale), texts.unsqueeze(1), true, exchange)
