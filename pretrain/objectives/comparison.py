"""How images are compared with texts: logits of some images at a time."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from pretrain.objectives.contrastive import sigmoid_contrast
from pretrain.ops.attention_pooling import AttentionPooling, KeysValues
from pretrain.ops.linear import linear
from pretrain.ops.text_conditioned import cosines

#: More tokens an image than this do not fit into a block of the fused kernels.
MAX_FUSED_TOKENS = 128
#: Numbers in one buffer of logits, or of pairs x width where texts pool; as many images are taken
#: at once as fit, at least one. A GPU wants larger products.
MAX_NUMBERS = 2**20
MAX_NUMBERS_ON_GPU = 2**26


class Comparison(ABC):
    """Compares images with texts.

    What it works on is given to it each time, so that gradients can be taken of copies.

    Attributes:
        image: tensors of B images, batch first.
        shared: parameters, temperatures, biases.
    """

    image: list[Tensor]
    shared: list[Tensor]

    def prepare(self, texts: Tensor, shared: Sequence[Tensor]) -> list[Tensor]:
        """(T, D) texts -> what `logits` wants of them, computed once for all images."""
        return [texts]

    @abstractmethod
    def logits(
        self,
        image: Sequence[Tensor],
        texts: Sequence[Tensor],
        shared: Sequence[Tensor],
        chosen: Tensor | None = None,
    ) -> Tensor:
        """Logits of n images with texts.

        Args:
            image: as `self.image`, of n images.
            texts: of `prepare`.
            shared: as `self.shared`.
            chosen: (n, Q) int64: which texts each image meets; None: all T.

        Returns:
            (n, Q) or (n, T).
        """

    def sigmoid_loss(
        self,
        image: Sequence[Tensor],
        texts: Sequence[Tensor],
        shared: Sequence[Tensor],
        chosen: Tensor | None,
        positive: Tensor | None,
    ) -> Tensor:
        """Sum of -log sigmoid(y logit) over the same pairs; see `sigmoid_contrast`."""
        return sigmoid_contrast(self.logits(image, texts, shared, chosen), positive)

    def num_images_at_once(self, num_texts: int) -> int:
        """How many images a buffer allows where each meets so many texts."""
        return max(1, _max_numbers(self.image[0]) // num_texts)


class DotProducts(Comparison):
    """scale x.t + bias: the cosine of image and text features of length 1.

    Args:
        images: (B, D).
        scale: (1,).
        bias: (1,) or None.
    """

    def __init__(self, images: Tensor, scale: Tensor, bias: Tensor | None = None) -> None:
        self.image = [images]
        self.shared = [scale] if bias is None else [scale, bias]

    def logits(
        self,
        image: Sequence[Tensor],
        texts: Sequence[Tensor],
        shared: Sequence[Tensor],
        chosen: Tensor | None = None,
    ) -> Tensor:
        assert chosen is None
        scale, *bias = shared
        logits = scale * image[0] @ texts[0].T
        return logits + bias[0] if bias else logits


class PooledCosines(Comparison):
    """scale cos + bias, where a text is compared with what it pools from an image's tokens.

    Args:
        pooling: what pools.
        image: keys and values of B images, of `project_tokens`.
        scale: (1,).
        bias: (1,) or None.
        chunk_size: images at once; 0: as many as fit.
    """

    def __init__(
        self,
        pooling: AttentionPooling,
        image: KeysValues,
        scale: Tensor,
        bias: Tensor | None = None,
        chunk_size: int = 0,
    ) -> None:
        self._eps, self._chunk_size = pooling.norm_query.eps, chunk_size
        self._is_fused = fits_fused_kernels(image)
        self.image = [image.keys, image.values]
        layers = (pooling.project, pooling.norm_query, pooling.query)
        parameters = [parameter for layer in layers for parameter in (layer.weight, layer.bias)]
        self.shared = [*parameters, scale, *([] if bias is None else [bias])]

    def prepare(self, texts: Tensor, shared: Sequence[Tensor]) -> list[Tensor]:
        """Queries, and what is compared with what they pool: (T, D) each."""
        norm_weight, norm_bias, weight, bias = shared[2:6]
        normed = F.layer_norm(texts, texts.shape[-1:], norm_weight, norm_bias, self._eps)
        return [linear(normed, weight, bias), F.normalize(texts, dim=1)]

    def logits(
        self,
        image: Sequence[Tensor],
        texts: Sequence[Tensor],
        shared: Sequence[Tensor],
        chosen: Tensor | None = None,
    ) -> Tensor:
        weight, bias, *_ = shared
        scale, *logit_bias = shared[6:]
        keys, values = image
        if chosen is None:
            met = [x.expand(len(keys), -1, -1) for x in texts]
        else:
            met = [x[chosen] for x in texts]
        logits = scale * cosines(KeysValues(keys, values), met[0], met[1], weight, bias)
        return logits + logit_bias[0] if logit_bias else logits

    def sigmoid_loss(
        self,
        image: Sequence[Tensor],
        texts: Sequence[Tensor],
        shared: Sequence[Tensor],
        chosen: Tensor | None,
        positive: Tensor | None,
    ) -> Tensor:
        if not self._is_fused or chosen is None:
            return super().sigmoid_loss(image, texts, shared, chosen, positive)
        # Imported late: it needs Triton, which is where GPUs are.
        from pretrain.ops.fused_pooling import PoolingInputs, pooling_sigmoid_loss

        sign = torch.full(chosen.shape, -1.0, device=chosen.device)
        return pooling_sigmoid_loss(
            PoolingInputs(
                queries=texts[0],
                directions=texts[1],
                keys=image[0],
                values=image[1],
                weight=shared[0],
                bias=shared[1],
                scale=shared[6],
                logit_bias=shared[7],
                chosen=chosen,
                sign=sign if positive is None else sign.masked_fill(positive, 1.0),
            )
        )

    def num_images_at_once(self, num_texts: int) -> int:
        keys = self.image[0]
        width = keys.shape[1] * keys.shape[3]
        return self._chunk_size or max(1, _max_numbers(keys) // (num_texts * width))


def fits_fused_kernels(image: KeysValues) -> bool:
    """Whether the Triton kernels can work with these tokens, where they are."""
    return image.keys.is_cuda and image.keys.shape[2] - 1 <= MAX_FUSED_TOKENS


def _max_numbers(tensor: Tensor) -> int:
    return MAX_NUMBERS_ON_GPU if tensor.is_cuda else MAX_NUMBERS
