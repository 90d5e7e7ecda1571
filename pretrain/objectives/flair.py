"""FLAIR: texts with what they see of the patches, and with the whole image."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretrain.distributed.exchange import Exchange
from pretrain.models.features import ImageFeatures, TextFeatures
from pretrain.objectives.base import Objective, bounded
from pretrain.objectives.candidates import draw_texts
from pretrain.objectives.comparison import DotProducts, PooledCosines
from pretrain.objectives.ring import ring_sigmoid
from pretrain.ops.attention_pooling import AttentionPooling
from pretrain.ops.text_conditioned import all_cosines, alone_cosines


@dataclass
class FlairConfig:
    """FLAIR's objective; the defaults are as published."""

    init_scale: float = 1 / 0.07  # inverse temperature at the start
    max_scale: float = 100.0  # and at most
    init_bias: float = -10.0  # of the logits, at the start
    multi_positive: bool = True  # texts against the whole image too, as in the published recipe
    # Images whose attention pooling is computed at once; 0: as many as fit a small buffer. The
    # kernels of GPUs see to that by themselves.
    chunk_size: int = 0


class FlairObjective(Objective):
    """ "FLAIR: VLM with Fine-grained Language-informed Image Representations" (CVPR 2025).

    The mean of two sigmoid terms (or the first alone), which share temperature and bias.
    Text-conditioned: an image meets its own K texts and one random text of each other image, each
    compared with what attention pooling, asked by that text, takes from the image's tokens; the sum
    is divided by B + K - 1. Multi-positive: the image feature against all texts, divided by B K.
    Texts of other ranks come round the ring as negatives, each chunk divided by the same numbers.

    Args:
        config: starting values.
        embed_dim: joint width D, a multiple of 8.
    """

    needs = ("image.pooled", "image.tokens", "text.parts")

    def __init__(self, config: FlairConfig, embed_dim: int) -> None:
        super().__init__()
        self.config = config
        self.attention_pooling = AttentionPooling(embed_dim)
        self.log_scale = nn.Parameter(torch.tensor([math.log(config.init_scale)]))
        self.bias = nn.Parameter(torch.tensor([config.init_bias]))

    @property
    def scale(self) -> Tensor:
        return bounded(self.log_scale, 0.0, math.log(self.config.max_scale)).exp()

    def forward(
        self,
        image: ImageFeatures,
        text: TextFeatures,
        exchange: Exchange,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        assert text.parts is not None
        batch, num_texts, _ = text.parts.shape
        drawn = draw_texts(batch, num_texts, generator)
        return self.terms(image, text, exchange, drawn.to(text.parts.device))

    def terms(
        self, image: ImageFeatures, text: TextFeatures, exchange: Exchange, drawn: Tensor
    ) -> dict[str, Tensor]:
        """The terms of the mean.

        Args:
            drawn: (B, B) integers: which text of image j image i meets as a negative.
        """
        assert image.tokens is not None and text.parts is not None
        batch, num_texts, _ = text.parts.shape
        keys_values = self.attention_pooling.project_tokens(image.tokens)
        pooling = PooledCosines(
            self.attention_pooling, keys_values, self.scale, self.bias, self.config.chunk_size
        )
        local = ring_sigmoid(pooling, text.parts, exchange, drawn) / (batch + num_texts - 1)
        if not self.config.multi_positive:
            return {"part_local": local}
        images = DotProducts(F.normalize(image.pooled, dim=1), self.scale, self.bias)
        whole = ring_sigmoid(images, F.normalize(text.parts, dim=2), exchange)
        return {"part_local": local / 2, "part_global": whole / (2 * batch * num_texts)}

    def score(self, image: ImageFeatures, text: TextFeatures) -> Tensor:
        """Mean over a caption's texts of the text-conditioned logit, as published without bias."""
        assert image.tokens is not None and text.parts is not None
        texts = text.parts.flatten(0, 1)
        queries = self.attention_pooling.project_queries(texts)
        cosine = all_cosines(self.attention_pooling, image.tokens, queries, texts)
        return self.scale * cosine.unflatten(1, text.parts.shape[:2]).mean(dim=2)

    def localise(self, image: ImageFeatures, queries: Tensor) -> Tensor:
        """Softmax over the tokens of the logit that each would give alone."""
        return (self.scale * self.token_cosines(image, queries)).softmax(dim=2)

    def token_cosines(self, image: ImageFeatures, queries: Tensor) -> Tensor:
        assert image.tokens is not None
        return alone_cosines(self.attention_pooling, image.tokens, queries)

    def diagnostics(self) -> dict[str, float]:
        return {"scale": self.scale.item(), "bias": self.bias.item()}
