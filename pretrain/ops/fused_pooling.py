"""Text-conditioned pooling with its sigmoid loss in Triton kernels, for GPUs. Untimed.

For each pair of an image and a text that it meets: attention of the text's query over the image's
tokens and the zero key, output projection, cosine with the text, -log sigmoid. Queries are gathered
where they are used, and nothing of the size of pairs x width is kept for the backward, which
computes it again, some images at a time. The output projection, a product of large matrices, is
left to the library.

Sums over the pairs of a text or an image are taken in a fixed order: results are the same each
time.

Checked in Triton's interpreter (TRITON_INTERPRET=1) against the eager way.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from pretrain.ops.pooling_kernels import attend, attend_backward, pair_loss

#: Texts of one image that a program works on.
BLOCK_QUERIES = 16
#: Channels of the pooled features that the loss reads at once.
BLOCK_WIDTH = 128
#: Smallest side of a product of matrices in Triton.
MIN_SIDE = 16
#: Numbers in a buffer of pairs x width; images beyond that wait for their turn.
MAX_BUFFER = 64 * 2**20
#: As `torch.nn.functional.normalize`.
EPS = 1e-12


class PoolingInputs(NamedTuple):
    """What `pooling_sigmoid_loss` works on."""

    queries: Tensor
    """(T, D) projected texts."""
    directions: Tensor
    """(T, D) texts of length 1."""
    keys: Tensor
    """(B, heads, M + 1, D / heads) of the images' tokens, the zero key last."""
    values: Tensor
    """As the keys."""
    weight: Tensor
    """(D, D) of the output projection."""
    bias: Tensor
    """(D,) of the output projection."""
    scale: Tensor
    """(1,) of the logits."""
    logit_bias: Tensor
    """(1,)."""
    chosen: Tensor
    """(B, Q) int64: which texts each image meets."""
    sign: Tensor
    """(B, Q) float32 y: +1 for an image's own texts, else -1."""


def pooling_sigmoid_loss(inputs: PoolingInputs) -> Tensor:
    """() float32: sum over pairs of -log sigmoid(y (scale cos + bias)), with gradients."""
    loss: Tensor = _PoolingLoss.apply(*inputs)
    return loss


class _PoolingLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:  # type: ignore[override]
        given = PoolingInputs(*(tensor.contiguous() for tensor in tensors))
        ctx.save_for_backward(*given)
        losses = torch.empty(given.chosen.shape, device=given.queries.device)
        for images in _turns(given):
            _run_loss(given, images, _pool(given, images)[0], losses[images])
        return losses.sum()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        given = PoolingInputs(*ctx.saved_tensors)
        grad_queries, grad_directions, grad_keys, grad_values, grad_weight, grad_bias = (
            torch.zeros_like(tensor) for tensor in given[:6]
        )
        grad_logits, cosines = (torch.empty_like(given.sign) for _ in range(2))
        for images in _turns(given):
            pooled, mixed = _pool(given, images)
            grad_pairs = torch.empty_like(pooled)
            gradients = (grads[0].contiguous(), grad_pairs, grad_logits[images])
            _run_loss(given, images, pooled, cosines[images], gradients)
            grad_pooled, index = pooled.flatten(0, 1), given.chosen[images].flatten()
            grad_directions.index_put_((index,), grad_pairs.flatten(0, 1), accumulate=True)
            grad_weight.addmm_(grad_pooled.T, mixed.flatten(0, 1))
            grad_bias += grad_pooled.sum(dim=0)
            keys, values = given.keys[images], given.values[images]
            attend_backward[_per_head(keys)](
                *(given.queries, given.chosen[images], keys, values),
                *(torch.mm(grad_pooled, given.weight), grad_pairs),
                *(grad_keys[images], grad_values[images]),
                **_sizes(given),
            )
            grad_queries.index_put_((index,), grad_pairs.flatten(0, 1), accumulate=True)
        return (
            *(grad_queries, grad_directions, grad_keys, grad_values, grad_weight, grad_bias),
            *((grad_logits * cosines).sum().view(1), grad_logits.sum().view(1), None, None),
        )


def _pool(given: PoolingInputs, images: slice) -> tuple[Tensor, Tensor]:
    """(n, Q, D) pooled features of some images, and what their heads mixed."""
    chosen, keys, values = given.chosen[images], given.keys[images], given.values[images]
    mixed = given.queries.new_empty(*chosen.shape, given.queries.shape[1])
    num_blocks = triton.cdiv(chosen.shape[1], BLOCK_QUERIES)
    attend[(*_per_head(keys), num_blocks)](
        given.queries, chosen, keys, values, mixed, **_sizes(given)
    )
    pooled = torch.addmm(given.bias, mixed.flatten(0, 1), given.weight.T)
    return pooled.view_as(mixed), mixed


def _run_loss(
    given: PoolingInputs,
    images: slice,
    pooled: Tensor,
    out: Tensor,
    gradients: tuple[Tensor, Tensor, Tensor] | None = None,
) -> None:
    grad_loss, grad_pairs, grad_logits = gradients or (out, out, out)  # unused in the forward
    num_pairs, width = pooled.shape[0] * pooled.shape[1], pooled.shape[2]
    pair_loss[(triton.cdiv(num_pairs, BLOCK_QUERIES),)](
        *(pooled, given.directions, given.chosen[images], given.sign[images]),
        *(given.scale, given.logit_bias, grad_loss, out, grad_pairs, grad_logits),
        *(num_pairs, width, EPS),
        ROWS=BLOCK_QUERIES,
        COLUMNS=BLOCK_WIDTH,
        BACKWARD=gradients is not None,
    )


def _per_head(keys: Tensor) -> tuple[int]:
    return (keys.shape[0] * keys.shape[1],)


def _sizes(given: PoolingInputs) -> dict[str, Any]:
    _, heads, num_rows, channels = given.keys.shape
    num_tokens = num_rows - 1  # without the zero key, which the kernels know by themselves
    return {
        "num_queries": given.chosen.shape[1],
        "num_tokens": num_tokens,
        "temperature": channels**-0.5,
        "HEADS": heads,
        "CHANNELS": channels,
        "ROWS": BLOCK_QUERIES,
        "TOKENS": max(MIN_SIDE, triton.next_power_of_2(num_tokens)),
        "PADDED": max(MIN_SIDE, triton.next_power_of_2(channels)),
    }


def _turns(given: PoolingInputs) -> Iterator[slice]:
    """Images whose pairs fit into a buffer, turn by turn."""
    num_images, num_queries = given.chosen.shape
    at_once = max(1, MAX_BUFFER // (num_queries * given.queries.shape[1]))
    for start in range(0, num_images, at_once):
        yield slice(start, start + at_once)
