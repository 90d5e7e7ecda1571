"""CAFT: parts with fine tokens, parts with the fine image, the whole with the coarse image."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretrain.distributed.exchange import Exchange
from pretrain.models.features import ImageFeatures, TextFeatures
from pretrain.objectives.base import Objective, bounded
from pretrain.objectives.candidates import draw_texts
from pretrain.objectives.clip import whole_infonce
from pretrain.objectives.comparison import DotProducts, PooledCosines
from pretrain.objectives.ring import ring_infonce, ring_sigmoid
from pretrain.ops.attention_pooling import AttentionPooling, KeysValues
from pretrain.ops.text_conditioned import all_cosines, alone_cosines, chosen_cosines
from recaption.common.config import check_choice, check_share


@dataclass
class CaftConfig:
    """CAFT's objective; the defaults are as published."""

    # sigmoid: every pair is a yes or a no (published, for large batches); softmax: InfoNCE over
    # the same candidates (learns in minutes at a small batch)
    loss_form: str = "sigmoid"
    part_local_weight: float = 1.0  # texts against what they see of the fine tokens
    part_global_weight: float = 1.0  # texts against the fine image feature
    whole_weight: float = 1.0  # captions against the coarse image feature
    init_part_scale: float = 1 / 0.07  # inverse temperature of both part terms at the start
    init_whole_scale: float = 1 / 0.07  # inverse temperature of the whole term at the start
    max_part_scale: float = 100.0
    max_whole_scale: float = math.exp(4.0)
    init_part_bias: float = -10.0  # sigmoid only
    init_whole_bias: float = -10.0  # sigmoid only
    alpha: float = 0.3  # share of the part score in the retrieval score
    # Images whose attention pooling is computed at once; 0: as many as fit a small buffer
    chunk_size: int = 0

    def __post_init__(self) -> None:
        check_choice("objective.caft.loss_form", self.loss_form, ("sigmoid", "softmax"))
        check_share("objective.caft.alpha", self.alpha)


class CaftObjective(Objective):
    """The three terms of CAFT (arXiv 2602.02977), with its sigmoid or as softmax.

    All similarities are cosines. A *part-local* similarity compares a text with what attention
    pooling, asked by that very text, takes from an image's fine tokens; an image meets its own K
    texts and one random text of each other image. Comparing what was pooled with the text that
    asked, for false pairs too, is what keeps the objective from reading texts alone.

    Sigmoid form, per rank of B images:
        part_local  = sum over its texts of -log sigmoid(y s) / (B + K - 1)
        part_global = sum over all texts / (B K)
        whole       = sum over all captions / B
    Texts of other ranks come round the ring as negatives, each chunk divided by the same numbers.

    Softmax form: symmetric InfoNCE over all ranks. Each image draws one of its texts, which then
    is the same negative to every other image; so the part-local similarities form a full matrix,
    with a softmax over texts and one over images. An image's other texts are further positives.

    Args:
        config: weights and starting values.
        embed_dim: joint width D, a multiple of 8.
    """

    needs = ("image.pooled", "image.fine_pooled", "image.fine_tokens", "text.whole", "text.parts")

    def __init__(self, config: CaftConfig, embed_dim: int) -> None:
        super().__init__()
        self.config = config
        self.attention_pooling = AttentionPooling(embed_dim)
        # One number each, but with an axis: DeepSpeed's ZeRO does not take parameters without.
        self.part_log_scale = nn.Parameter(torch.tensor([math.log(config.init_part_scale)]))
        self.whole_log_scale = nn.Parameter(torch.tensor([math.log(config.init_whole_scale)]))
        self.part_bias: nn.Parameter | None = None
        self.whole_bias: nn.Parameter | None = None
        if config.loss_form == "sigmoid":
            self.part_bias = nn.Parameter(torch.tensor([config.init_part_bias]))
            self.whole_bias = nn.Parameter(torch.tensor([config.init_whole_bias]))

    @property
    def part_scale(self) -> Tensor:
        return bounded(self.part_log_scale, 0.0, math.log(self.config.max_part_scale)).exp()

    @property
    def whole_scale(self) -> Tensor:
        return bounded(self.whole_log_scale, 0.0, math.log(self.config.max_whole_scale)).exp()

    def forward(
        self,
        image: ImageFeatures,
        text: TextFeatures,
        exchange: Exchange,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        assert text.parts is not None
        batch, num_texts, _ = text.parts.shape
        device = text.parts.device
        if self.config.loss_form == "sigmoid":
            # One text of each other image, drawn anew for each image.
            drawn = draw_texts(batch, num_texts, generator).to(device)
            terms = self.sigmoid_terms(image, text, exchange, drawn)
        else:
            drawn = torch.randint(num_texts, (batch,), generator=generator).to(device)
            terms = self.softmax_terms(image, text, exchange, drawn)
        weights = {
            "part_local": self.config.part_local_weight,
            "part_global": self.config.part_global_weight,
            "whole": self.config.whole_weight,
        }
        return {name: weights[name] * term for name, term in terms.items()}

    def sigmoid_terms(
        self, image: ImageFeatures, text: TextFeatures, exchange: Exchange, drawn: Tensor
    ) -> dict[str, Tensor]:
        """The published terms.

        Args:
            drawn: (B, B) integers: which text of image j image i meets as a negative.
        """
        assert image.fine_pooled is not None and image.fine_tokens is not None
        assert text.parts is not None and text.whole is not None
        batch, num_texts, _ = text.parts.shape
        coarse, fine, parts, wholes = _of_length_1(image, text)
        local = ring_sigmoid(self._pooling(image), text.parts, exchange, drawn)
        part = ring_sigmoid(DotProducts(fine, self.part_scale, self.part_bias), parts, exchange)
        images = DotProducts(coarse, self.whole_scale, self.whole_bias)
        whole = ring_sigmoid(images, wholes.unsqueeze(1), exchange)
        return {
            "part_local": local / (batch + num_texts - 1),
            "part_global": part / (batch * num_texts),
            "whole": whole / batch,
        }

    def softmax_terms(
        self, image: ImageFeatures, text: TextFeatures, exchange: Exchange, drawn: Tensor
    ) -> dict[str, Tensor]:
        """Symmetric InfoNCE of the same three similarities.

        Args:
            drawn: (B,) int64: which of its texts each image shows to all others.
        """
        assert image.fine_pooled is not None and image.fine_tokens is not None
        assert text.parts is not None and text.whole is not None
        batch, num_texts, _ = text.parts.shape
        coarse, fine, parts, wholes = _of_length_1(image, text)
        shown = drawn.unsqueeze(1)

        # Local: the drawn texts of all ranks, then the own texts, of each image.
        pooling = self._pooling(image)
        rows = torch.arange(batch, device=drawn.device)
        own_texts = torch.arange(batch * num_texts, device=drawn.device).view(batch, -1)
        cosines = chosen_cosines(
            self.attention_pooling,
            KeysValues(*pooling.image),
            text.parts.flatten(0, 1),
            own_texts,
            self.config.chunk_size,
        )
        true = self.part_scale * cosines
        local = ring_infonce(pooling, text.parts[rows.unsqueeze(1), shown], true, exchange, shown)

        # Global: the fine image feature against all texts of all ranks.
        true = self.part_scale * (fine.unsqueeze(1) * parts).sum(dim=2)
        part = ring_infonce(DotProducts(fine, self.part_scale), parts, true, exchange)
        whole = whole_infonce(coarse, wholes, self.whole_scale, exchange)
        return {"part_local": local, "part_global": part, "whole": whole}

    def score(self, image: ImageFeatures, text: TextFeatures) -> Tensor:
        """(1 - alpha) whole logit + alpha mean over parts of the text-conditioned logit.

        As published, the texts that ask are L2-normalised here, though not in training.
        """
        assert text.whole is not None
        alpha = self.config.alpha
        cosine = F.normalize(image.pooled, dim=1) @ F.normalize(text.whole, dim=1).T
        whole = self._whole_logits(cosine)
        if alpha == 0:
            return whole
        return (1 - alpha) * whole + alpha * self.local_scores(image, text)

    def local_scores(self, image: ImageFeatures, text: TextFeatures) -> Tensor:
        """(number of images, number of captions): mean over parts of text-conditioned logits."""
        assert image.fine_tokens is not None and text.parts is not None
        texts = F.normalize(text.parts.flatten(0, 1), dim=1)
        queries = self.attention_pooling.project_queries(texts)
        cosine = all_cosines(self.attention_pooling, image.fine_tokens, queries, texts)
        return self._part_logits(cosine).unflatten(1, text.parts.shape[:2]).mean(dim=2)

    def localise(self, image: ImageFeatures, queries: Tensor) -> Tensor:
        """Softmax over the fine tokens of the part-local logit that each would give alone."""
        return (self.part_scale * self.token_cosines(image, queries)).softmax(dim=2)

    def token_cosines(self, image: ImageFeatures, queries: Tensor) -> Tensor:
        assert image.fine_tokens is not None
        return alone_cosines(self.attention_pooling, image.fine_tokens, queries)

    def diagnostics(self) -> dict[str, float]:
        values = {"part_scale": self.part_scale.item(), "whole_scale": self.whole_scale.item()}
        if self.part_bias is not None and self.whole_bias is not None:
            values |= {"part_bias": self.part_bias.item(), "whole_bias": self.whole_bias.item()}
        return values

    def _pooling(self, image: ImageFeatures) -> PooledCosines:
        """Texts against what they see of the fine tokens."""
        assert image.fine_tokens is not None
        return PooledCosines(
            self.attention_pooling,
            self.attention_pooling.project_tokens(image.fine_tokens),
            self.part_scale,
            self.part_bias,
            self.config.chunk_size,
        )

    def _part_logits(self, cosine: Tensor) -> Tensor:
        logits = self.part_scale * cosine
        return logits if self.part_bias is None else logits + self.part_bias

    def _whole_logits(self, cosine: Tensor) -> Tensor:
        logits = self.whole_scale * cosine
        return logits if self.whole_bias is None else logits + self.whole_bias


def _of_length_1(image: ImageFeatures, text: TextFeatures) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Coarse and fine image features, parts and whole captions."""
    assert image.fine_pooled is not None
    assert text.parts is not None and text.whole is not None
    return (
        F.normalize(image.pooled, dim=1),
        F.normalize(image.fine_pooled, dim=1),
        F.normalize(text.parts, dim=2),
        F.normalize(text.whole, dim=1),
    )
