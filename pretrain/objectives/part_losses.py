"""The two sigmoid losses of texts that are parts of a caption (FLAIR, CAFT)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pretrain.objectives.candidates import owned
from pretrain.objectives.contrastive import sigmoid_contrast
from pretrain.ops.attention_pooling import AttentionPooling, KeysValues
from pretrain.ops.text_conditioned import cosines

#: More tokens an image than this do not fit into a block of the fused kernels.
MAX_FUSED_TOKENS = 128
#: Numbers in one buffer of pairs x width, where as many images are taken at once as fit.
MAX_PAIR_NUMBERS = 2**20


class PartLosses:
    """Sums over pairs of -log sigmoid(y (scale cos + bias)), added up over the texts of all ranks.

    *Local*: texts against what they see of the images' tokens. *Whole*: texts against the images'
    features.

    On a GPU the local loss goes by the fused kernels. Elsewhere its gradients are computed at once,
    some images at a time, and kept instead of what they are computed from: memory neither grows
    with the pairs nor, but for the gradients of the texts themselves, with the ranks.

    Args:
        pooling: pools the tokens.
        image: keys and values of B images.
        pooled: (B, D) features of the images, of length 1.
        scale, bias: (1,) of the logits.
        chunk_size: images at once; 0: as many as fit.
    """

    def __init__(
        self,
        pooling: AttentionPooling,
        image: KeysValues,
        pooled: Tensor,
        scale: Tensor,
        bias: Tensor,
        chunk_size: int = 0,
    ) -> None:
        self._pooling, self._image, self._pooled = pooling, image, pooled
        self._scale, self._bias, self._chunk_size = scale, bias, chunk_size
        # What the local loss of every text depends on, and the gradients so far.
        project = pooling.project
        self._shared = [image.keys, image.values, project.weight, project.bias, scale, bias]
        self._gradients: list[Tensor] = []  # none on the way of the kernels, which have their own
        self._local = self._whole = pooled.new_zeros(())

    def add(self, parts: Tensor, chosen: Tensor, is_own: bool) -> None:
        """Adds the losses of some texts.

        Args:
            parts: (B, K, D) texts of as many images: of these, or of those of another rank.
            chosen: (B, Q) int64: which of the B * K texts each image meets locally.
            is_own: the texts are of these images; else all of them are negatives.
        """
        batch, num_texts, _ = parts.shape
        texts = parts.flatten(0, 1)
        positive = owned(chosen, num_texts) if is_own else None
        add = self._fused if fits_fused_kernels(self._image) else self._eager
        self._local = self._local + add(texts, chosen, positive)
        logits = self._scale * self._pooled @ F.normalize(texts, dim=1).T + self._bias
        every = torch.arange(batch * num_texts, device=texts.device).expand(batch, -1)
        positive = owned(every, num_texts) if is_own else None
        self._whole = self._whole + sigmoid_contrast(logits, positive)

    def sums(self) -> tuple[Tensor, Tensor]:
        """() each: the local and the whole loss of all that was added; to be asked for once."""
        if not self._gradients:
            return self._local, self._whole
        nothing = self._local.new_zeros(())
        local = self._local + _with_gradients(nothing, self._shared, self._gradients)
        return local, self._whole

    def _fused(self, texts: Tensor, chosen: Tensor, positive: Tensor | None) -> Tensor:
        # Imported late: it needs Triton, which is where GPUs are.
        from pretrain.ops.fused_pooling import PoolingInputs, pooling_sigmoid_loss

        sign = torch.full(chosen.shape, -1.0, device=texts.device)
        return pooling_sigmoid_loss(
            PoolingInputs(
                queries=self._pooling.project_queries(texts),
                directions=F.normalize(texts, dim=1),
                keys=self._image.keys,
                values=self._image.values,
                weight=self._pooling.project.weight,
                bias=self._pooling.project.bias,
                scale=self._scale,
                logit_bias=self._bias,
                chosen=chosen,
                sign=sign if positive is None else sign.masked_fill(positive, 1.0),
            )
        )

    def _eager(self, texts: Tensor, chosen: Tensor, positive: Tensor | None) -> Tensor:
        self._gradients = self._gradients or [torch.zeros_like(x) for x in self._shared]
        of_texts = [self._pooling.project_queries(texts), F.normalize(texts, dim=1)]
        gradients = [torch.zeros_like(tensor) for tensor in of_texts]
        value = texts.new_zeros(())
        size = self._chunk_size or max(1, MAX_PAIR_NUMBERS // (chosen.shape[1] * texts.shape[1]))
        for start in range(0, len(chosen), size):
            some = slice(start, start + size)
            value += self._chunk(of_texts, gradients, chosen[some], positive, some)
        return _with_gradients(value, of_texts, gradients)

    def _chunk(
        self,
        of_texts: Sequence[Tensor],
        gradients: Sequence[Tensor],
        chosen: Tensor,
        positive: Tensor | None,
        some: slice,
    ) -> Tensor:
        """The loss of some images; its gradients are added to those that there are."""
        keys, values, weight, bias, scale, logit_bias = self._shared
        given = [*of_texts, keys[some], values[some], weight, bias, scale, logit_bias]
        leaves = [tensor.detach().requires_grad_(torch.is_grad_enabled()) for tensor in given]
        queries, directions, keys, values, weight, bias, scale, logit_bias = leaves
        image = KeysValues(keys, values)
        pairs = cosines(image, queries[chosen], directions[chosen], weight, bias)
        signs = None if positive is None else positive[some]
        loss = sigmoid_contrast(scale * pairs + logit_bias, signs)
        if torch.is_grad_enabled():
            own = [g[some] for g in self._gradients[:2]]
            places = [*gradients, *own, *self._gradients[2:]]
            for place, gradient in zip(places, torch.autograd.grad(loss, leaves), strict=True):
                place += gradient
        return loss.detach()


def fits_fused_kernels(image: KeysValues) -> bool:
    """Whether the Triton kernels can work with these tokens, where they are."""
    return image.keys.is_cuda and image.keys.shape[2] - 1 <= MAX_FUSED_TOKENS


class _Attached(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, *tensors: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(*tensors[len(tensors) // 2 :])
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        gradients = ctx.saved_tensors
        return (None, *(grads[0] * gradient for gradient in gradients), *([None] * len(gradients)))


def _with_gradients(
    value: Tensor, tensors: Sequence[Tensor], gradients: Sequence[Tensor]
) -> Tensor:
    """A number whose gradients are known."""
    result: Tensor = _Attached.apply(value, *tensors, *gradients)
    return result
