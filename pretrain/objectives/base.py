"""What an objective is: a function of features, never of the model."""

from typing import Any

import torch
from torch import Tensor, nn

from pretrain.distributed.exchange import Exchange
from pretrain.models.features import ImageFeatures, TextFeatures


class Objective(nn.Module):
    """A training objective, with the parameters that belong to it (temperatures, pooling).

    The gradient that counts is that of the mean over ranks of each rank's loss, which is what
    data-parallel training averages. Every rank must weigh its terms alike: gradients of texts that
    other ranks have seen may come with the loss (`pretrain.objectives.ring`).
    """

    #: Features it reads, as `image.<field>` or `text.<field>`.
    needs: tuple[str, ...] = ()

    def forward(
        self,
        image: ImageFeatures,
        text: TextFeatures,
        exchange: Exchange,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """Named terms of the loss of this rank's batch; the loss is their sum.

        Args:
            image: features of B images.
            text: features of their texts.
            exchange: reaches the other ranks' features.
            generator: source of whatever is drawn at random.
        """
        raise NotImplementedError

    def score(self, image: ImageFeatures, text: TextFeatures) -> Tensor:
        """(number of images, number of captions) scores for retrieval."""
        raise NotImplementedError

    def localise(self, image: ImageFeatures, queries: Tensor) -> Tensor:
        """Where an image shows what a text says.

        Args:
            image: features of B images.
            queries: (B, Q, D) projected features of Q texts an image.

        Returns:
            (B, Q, M) relevance of each fine token (of each token, where the objective knows of no
            fine ones); at least 0, sums to at most 1.
        """
        raise NotImplementedError

    def token_cosines(self, image: ImageFeatures, queries: Tensor) -> Tensor:
        """How like each token of an image is to texts; unlike `localise`, also between texts.

        Args as of `localise`.

        Returns:
            (B, Q, M) cosines of the tokens that `localise` tells of.
        """
        raise NotImplementedError

    def diagnostics(self) -> dict[str, float]:
        """Temperatures and biases, for the log."""
        return {}


class _Bounded(torch.autograd.Function):
    """A clamp that still lets the gradient lead back from the bound."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x)
        ctx.bounds = (low, high)
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        low, high = ctx.bounds
        # A descent step moves against the gradient: outwards is stopped, inwards is not.
        leads_out = ((x <= low) & (grads[0] > 0)) | ((x >= high) & (grads[0] < 0))
        return grads[0].masked_fill(leads_out, 0.0), None, None


def bounded(x: Tensor, low: float, high: float) -> Tensor:
    """`x` clamped to [low, high]; at a bound, only gradients that lead back inside pass."""
    clamped: Tensor = _Bounded.apply(x, low, high)
    return clamped
