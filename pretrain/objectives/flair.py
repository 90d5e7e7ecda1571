"""FLAIR: texts with what they see of the patches, and with the whole image."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretrain.distributed.exchange import Exchange
from pretrain.models.features import ImageFeatures, TextFeatures
from pretrain.objectives.base import Objective, bounded
from pretrain.objectives.candidates import chosen_sigmoid_loss, own_and_drawn, owned
from pretrain.objectives.contrastive import sigmoid_contrast
from pretrain.ops.attention_pooling import AttentionPooling
from pretrain.ops.text_conditioned import all_cosines


@dataclass
class FlairConfig:
    """FLAIR's objective; the defaults are as published."""

    init_scale: float = 1 / 0.07  # inverse temperature at the start
    max_scale: float = 100.0  # and at most
    init_bias: float = -10.0  # of the logits, at the start
    global_weight: float = 1.0  # texts against the whole image; 0 leaves that term out
    # images whose attention pooling is computed at once and recomputed for the gradients; 0: all
    # at once, nothing recomputed
    chunk_size: int = 0


class FlairObjective(Objective):
    """ "FLAIR: VLM with Fine-grained Language-informed Image Representations" (CVPR 2025).

    The mean of two sigmoid terms, which share temperature and bias. Text-conditioned: an image
    meets its own K texts and one random text of each other image, each compared with what attention
    pooling, asked by that text, takes from the image's tokens; the sum is divided by B + K - 1.
    Multi-positive: the image feature against all texts, divided by B K. Texts of other ranks come
    round the ring as negatives, each chunk divided by the same numbers.

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
        drawn = torch.randint(num_texts, (batch, batch), generator=generator)
        return self.terms(image, text, exchange, drawn.to(text.parts.device))

    def terms(
        self, image: ImageFeatures, text: TextFeatures, exchange: Exchange, drawn: Tensor
    ) -> dict[str, Tensor]:
        """The terms of the mean.

        Args:
            drawn: (B, B) int64: which text of image j image i meets as a negative.
        """
        assert image.tokens is not None and text.parts is not None
        batch, num_texts, _ = text.parts.shape
        pooled = F.normalize(image.pooled, dim=1)
        keys_values = self.attention_pooling.project_tokens(image.tokens)
        local = whole = pooled.new_zeros(())
        texts = exchange.ring(text.parts)
        candidates = exchange.ring(own_and_drawn(drawn, num_texts))
        every = torch.arange(batch * num_texts, device=drawn.device).expand(batch, -1)
        for (source, chunk), (_, index) in zip(texts, candidates, strict=True):
            is_own = source == exchange.rank
            parts = chunk.flatten(0, 1)
            local = local + chosen_sigmoid_loss(
                self.attention_pooling,
                keys_values,
                parts,
                index,
                owned(index, num_texts) if is_own else None,
                self.scale,
                self.bias,
                self.config.chunk_size,
            )
            cosines = pooled @ F.normalize(parts, dim=1).T
            positive = owned(every, num_texts) if is_own else None
            whole = whole + sigmoid_contrast(self._logits(cosines), positive)
        local = local / (batch + num_texts - 1)
        if self.config.global_weight == 0:
            return {"part_local": local}
        whole = self.config.global_weight * whole / (batch * num_texts)
        return {"part_local": local / 2, "part_global": whole / 2}

    def score(self, image: ImageFeatures, text: TextFeatures) -> Tensor:
        """Mean over a caption's texts of the text-conditioned logit, as published without bias."""
        assert image.tokens is not None and text.parts is not None
        texts = text.parts.flatten(0, 1)
        queries = self.attention_pooling.project_queries(texts)
        cosine = all_cosines(self.attention_pooling, image.tokens, queries, texts)
        return self.scale * cosine.unflatten(1, text.parts.shape[:2]).mean(dim=2)

    def localise(self, image: ImageFeatures, queries: Tensor) -> Tensor:
        """Softmax over the tokens of the logit that each would give alone."""
        assert image.tokens is not None
        alone = F.normalize(self.attention_pooling.pool_alone(image.tokens), dim=2)
        cosine = F.normalize(queries, dim=2) @ alone.transpose(1, 2)
        return torch.softmax(self.scale * cosine, dim=2)

    def diagnostics(self) -> dict[str, float]:
        return {"scale": self.scale.item(), "bias": self.bias.item()}

    def _logits(self, cosine: Tensor) -> Tensor:
        return self.scale * cosine + self.bias
