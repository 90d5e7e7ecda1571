"""Losses over the texts of all ranks, which come by one rank after the other.

A rank compares its images with its own texts and then with those that come round the ring, some
images at a time. Nothing of a visiting text is kept once it has moved on: what the backward needs
of it is computed while it is there, and gradients of texts travel home behind them. So memory grows
with the features of one rank, neither with the pairs nor with the number of ranks (figures in
docs/performance.md).

Each rank gets d(sum of all ranks' losses)/d(own features): what a rank does with another rank's
texts counts towards the gradients of the rank that made them. Data-parallel averaging of the
parameter gradients then yields the gradient of the mean of the ranks' losses.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pretrain.distributed.exchange import Exchange
from pretrain.objectives.candidates import own_and_drawn, owned
from pretrain.objectives.comparison import Comparison
from pretrain.objectives.contrastive import softmax_contrast
from pretrain.ops.known_gradients import with_gradients


def ring_sigmoid(
    comparison: Comparison, texts: Tensor, exchange: Exchange, drawn: Tensor | None = None
) -> Tensor:
    """Sum of -log sigmoid(y logit) over this rank's images and the texts of all ranks (SigLIP).

    True pairs, y = +1, are an image and its own texts. Gradients are computed with the loss, so
    nothing is computed twice, and nothing is sent in the backward. Every rank must take its loss
    times the same factor into what it differentiates, as data-parallel training does.

    Args:
        comparison: holds B images.
        texts: (B, K, D) of this rank.
        drawn: (B, B) integers: which text of its image j this rank shows to the image i of every
            rank, which also meets all texts of its image i; None: images meet all texts.

    Returns:
        ().
    """
    inputs = _Inputs(comparison.image, comparison.shared)
    gradients = inputs.zeros() if torch.is_grad_enabled() else None
    value = texts.new_zeros(())
    homeward = exchange.homeward()
    for source, (chunk, *tables) in exchange.ring(texts, *([] if drawn is None else [drawn])):
        visitors = _Visitors(comparison, inputs, chunk, gradients)
        for some in visitors.images(None if drawn is None else chunk.shape[1] + len(chunk) - 1):
            chosen = own_and_drawn(tables[0][some], chunk.shape[1], some.start) if tables else None
            positive = None
            if source == exchange.rank:
                met = visitors.every_text(some) if chosen is None else chosen
                positive = owned(met, chunk.shape[1], some.start)
            value += visitors.loss(some, chosen, positive)
        if gradients is not None:
            homeward.add(visitors.gradient_of_texts())
        del visitors  # before the next ones come
    if gradients is None:
        return value
    tensors = [texts, *inputs.image, *inputs.shared]
    found = [homeward.collect(), *gradients.image, *gradients.shared]
    return with_gradients(value, tensors, found)


def ring_infonce(
    comparison: Comparison,
    texts: Tensor,
    true: Tensor,
    exchange: Exchange,
    shown: Tensor | None = None,
) -> Tensor:
    """Symmetric InfoNCE of this rank's images and texts among those of all ranks.

    The mean of two: each true pair among the other images' texts (`softmax_contrast`), and each
    text of `texts` among the images.

    Args:
        comparison: holds B images.
        texts: (B, C, D) what every image meets of this rank's texts, those of its image i in row i.
        true: (B, K) logits of the images with their own texts.
        shown: (B, C) int64: which of the K own texts `texts` are; None: all, in their order.

    Returns:
        ().
    """
    over_texts, over_images = ring_normalisers(comparison, texts, exchange)
    own = true if shown is None else true.gather(1, shown)
    return (softmax_contrast(true, over_texts) + (over_images - own).mean()) / 2


def ring_normalisers(
    comparison: Comparison, texts: Tensor, exchange: Exchange
) -> tuple[Tensor, Tensor]:
    """Log-sum-exps of logits along both sides of the matrix of all ranks' images and texts.

    The texts go round twice: now, and in the backward, where the logits are computed again and,
    the normalisers being known, each gradient is a product of softmax weights. Exact whatever the
    ranks do with the results.

    Args:
        comparison: holds B images.
        texts: (B, C, D), those of image i in row i.

    Returns:
        (B,) over the texts of all other images of all ranks, for each image of this rank, -inf
        where there is none; (B, C) over the images of all ranks, for each text of this rank.
    """
    tensors = [*comparison.image, *comparison.shared]
    over_texts, over_images = _Normalisers.apply(comparison, exchange, texts, *tensors)
    return over_texts, over_images


class _Inputs(NamedTuple):
    """What a comparison works on, or the gradients of it."""

    image: list[Tensor]
    shared: list[Tensor]

    def zeros(self) -> "_Inputs":
        return _Inputs(*([torch.zeros_like(x) for x in tensors] for tensors in self))


class _Visitors:
    """The texts of one rank, with this rank's images, and the gradients of both.

    Args:
        chunk: (B, K, D) the texts.
        gradients: of the images and of what is shared, to be added to; None: none are wanted.
    """

    def __init__(
        self, comparison: Comparison, inputs: _Inputs, chunk: Tensor, gradients: _Inputs | None
    ) -> None:
        self._comparison, self._inputs, self._gradients = comparison, inputs, gradients
        self._shape = chunk.shape
        with torch.set_grad_enabled(gradients is not None):
            self._texts = self._leaf(chunk.flatten(0, 1))
            self._shared = [self._leaf(x) for x in inputs.shared]
            self._prepared = comparison.prepare(self._texts, self._shared)
        if gradients is not None:
            self._of_prepared = [torch.zeros_like(x) for x in self._prepared]

    def images(self, num_texts: int | None = None) -> Iterator[slice]:
        """Which images to take, turn by turn, where each meets so many of the texts, or all."""
        batch = len(self._inputs.image[0])
        size = self._comparison.num_images_at_once(num_texts or len(self._texts))
        return (slice(start, min(start + size, batch)) for start in range(0, batch, size))

    def every_text(self, some: slice) -> Tensor:
        """(n, T) flat numbers of all texts, for each of n images."""
        numbers = torch.arange(len(self._texts), device=self._texts.device)
        return numbers.expand(some.stop - some.start, -1)

    def loss(self, some: slice, chosen: Tensor | None, positive: Tensor | None) -> Tensor:
        """() the sigmoid loss of some images; its gradients are added to those that there are."""

        loss = partial(self._comparison.sigmoid_loss, chosen=chosen, positive=positive)
        return self._differentiate(some, loss, None)

    def logits(self, some: slice) -> Tensor:
        """(n, T), without gradients."""
        image = [x[some] for x in self._inputs.image]
        with torch.no_grad():
            return self._comparison.logits(image, self._prepared, self._shared)

    def add_gradients(self, some: slice, of_logits: Callable[[Tensor], Tensor]) -> None:
        """Adds the gradients that follow from those of the (n, T) logits of some images."""
        self._differentiate(some, self._comparison.logits, of_logits)

    def gradient_of_texts(self) -> Tensor:
        """(B, K, D), of all that was added."""
        assert self._gradients is not None
        found = torch.autograd.grad(
            self._prepared,
            [self._texts, *self._shared],
            self._of_prepared,
            allow_unused=True,
        )
        for place, gradient in zip(self._gradients.shared, found[1:], strict=True):
            if gradient is not None:
                place += gradient
        return found[0].contiguous().view(self._shape)

    def _differentiate(
        self,
        some: slice,
        function: Callable[..., Tensor],
        of_result: Callable[[Tensor], Tensor] | None,
    ) -> Tensor:
        image, prepared, shared = (
            [self._leaf(x) for x in tensors]
            for tensors in ([x[some] for x in self._inputs.image], self._prepared, self._shared)
        )
        with torch.set_grad_enabled(self._gradients is not None):
            result = function(image, prepared, shared)
        if self._gradients is not None:
            given = None if of_result is None else of_result(result.detach())
            leaves = [*image, *prepared, *shared]
            found = torch.autograd.grad(result, leaves, given, allow_unused=True)
            of_image = [x[some] for x in self._gradients.image]
            places = [*of_image, *self._of_prepared, *self._gradients.shared]
            for place, gradient in zip(places, found, strict=True):
                if gradient is not None:
                    place += gradient
        return result.detach()

    def _leaf(self, tensor: Tensor) -> Tensor:
        return tensor.detach().requires_grad_(self._gradients is not None)


class _Normalisers(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, comparison: Comparison, exchange: Exchange, texts: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, Tensor]:
        inputs = _split(comparison, tensors)
        batch, num_texts, _ = texts.shape
        over_texts = texts.new_full((batch,), -torch.inf)
        homeward = exchange.homeward(torch.logaddexp)
        for source, (chunk,) in exchange.ring(texts):
            visitors = _Visitors(comparison, inputs, chunk, None)
            over_images = texts.new_full((batch * num_texts,), -torch.inf)
            for some in visitors.images():
                logits = visitors.logits(some)
                torch.logaddexp(over_images, logits.logsumexp(dim=0), out=over_images)
                if source == exchange.rank:
                    own = owned(visitors.every_text(some), num_texts, some.start)
                    logits = logits.masked_fill_(own, -torch.inf)
                over_texts[some] = torch.logaddexp(over_texts[some], logits.logsumexp(dim=1))
            homeward.add(over_images)
        over_images = homeward.collect().view(batch, num_texts)
        ctx.comparison, ctx.exchange = comparison, exchange
        ctx.save_for_backward(over_texts, over_images, texts, *tensors)
        return over_texts, over_images

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        comparison, exchange = ctx.comparison, ctx.exchange
        over_texts, over_images, texts, *tensors = ctx.saved_tensors
        inputs = _split(comparison, tensors)
        gradients = inputs.zeros()
        grad_over_texts, grad_over_images = grads
        num_texts = texts.shape[1]
        homeward = exchange.homeward()
        for source, (chunk, columns, grad_columns) in exchange.ring(
            texts, over_images, grad_over_images
        ):
            visitors = _Visitors(comparison, inputs, chunk, gradients)
            for some in visitors.images():
                own = None
                if source == exchange.rank:
                    own = owned(visitors.every_text(some), num_texts, some.start)
                visitors.add_gradients(
                    some,
                    _softmax_weights(
                        _Side(over_texts[some], grad_over_texts[some]),
                        _Side(columns.flatten(), grad_columns.flatten()),
                        own,
                    ),
                )
            homeward.add(visitors.gradient_of_texts())
            del visitors  # before the next ones come
        return None, None, homeward.collect(), *gradients.image, *gradients.shared


class _Side(NamedTuple):
    """Log-sum-exps along one side of a matrix, and their gradients."""

    value: Tensor
    gradient: Tensor


def _softmax_weights(rows: _Side, columns: _Side, own: Tensor | None) -> Callable[[Tensor], Tensor]:
    """From (n, T) logits to their gradients, where `own` pairs do not count in the rows."""

    def weights(logits: Tensor) -> Tensor:
        of_rows = (logits - rows.value.unsqueeze(1)).exp_().mul_(rows.gradient.unsqueeze(1))
        if own is not None:
            of_rows.masked_fill_(own, 0.0)
        of_columns = (logits - columns.value).exp_().mul_(columns.gradient)
        return of_rows.add_(of_columns)

    return weights


def _split(comparison: Comparison, tensors: Sequence[Tensor]) -> _Inputs:
    num_image = len(comparison.image)
    return _Inputs(list(tensors[:num_image]), list(tensors[num_image:]))
