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
from typing import Any

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


class _PoolingLoss(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        queries: Tensor,
        directions: Tensor,
        keys: Tensor,
        values: Tensor,
        weight: Tensor,
        bias: Tensor,
        scale: Tensor,
        logit_bias: Tensor,
        chosen: Tensor,
        sign: Tensor,
    ) -> Tensor:
        given = (queries, directions, keys, values, weight, bias, scale, logit_bias, chosen, sign)
        saved = queries, directions, keys, values, weight, bias, _, _, chosen, _ = tuple(
            x.contiguous() for x in given
        )
        ctx.save_for_backward(*saved)
        losses = torch.empty(chosen.shape, device=queries.device, dtype=torch.float32)
        for images in _turns(chosen, queries.shape[1]):
            pooled, _ = _pool(keys, values, weight, bias, queries, chosen, images)
            _run_loss(pooled, saved, images, out=losses[images])
        return losses.sum()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        saved = ctx.saved_tensors
        queries, directions, keys, values, weight, bias, _, _, chosen, _ = saved
        grad_queries, grad_directions, grad_weight, grad_bias = (
            torch.zeros_like(x) for x in (queries, directions, weight, bias)
        )
        grad_keys, grad_values = torch.empty_like(keys), torch.empty_like(values)
        grad_logits, cosines = (torch.empty(chosen.shape, device=queries.device) for _ in range(2))
        for images in _turns(chosen, queries.shape[1]):
            pooled, mixed = _pool(keys, values, weight, bias, queries, chosen, images)
            grad_pairs = torch.empty_like(pooled)
            gradients = (grads[0].contiguous(), grad_pairs, grad_logits[images])
            _run_loss(pooled, saved, images, cosines[images], gradients)
            grad_pooled, index = pooled.flatten(0, 1), chosen[images].flatten()
            grad_directions.index_put_((index,), grad_pairs.flatten(0, 1), accumulate=True)
            grad_weight.addmm_(grad_pooled.T, mixed.flatten(0, 1))
            grad_bias += grad_pooled.sum(dim=0)
            grad_mixed = torch.mm(grad_pooled, weight)
            attend_backward[_per_head(keys[images])](
                *(queries, chosen[images], keys[images], values[images], grad_mixed, grad_pairs),
                *(grad_keys[images], grad_values[images]),
                **_sizes(keys, chosen),
            )
            grad_queries.index_put_((index,), grad_pairs.flatten(0, 1), accumulate=True)
        return (
            *(grad_queries, grad_directions, grad_keys, grad_values, grad_weight, grad_bias),
            *((grad_logits * cosines).sum().view(1), grad_logits.sum().view(1), None, None),
        )


def pooling_sigmoid_loss(
    queries: Tensor,
    directions: Tensor,
    keys: Tensor,
    values: Tensor,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor,
    logit_bias: Tensor,
    chosen: Tensor,
    sign: Tensor,
) -> Tensor:
    """Sum over pairs of -log sigmoid(y (scale cos + bias)), with gradients.

    Args:
        queries: (T, D) projected texts.
        directions: (T, D) texts of length 1.
        keys, values: (B, heads, M, D / heads) of the images' tokens, without the zero key.
        weight, bias: (D, D) and (D,) of the output projection.
        scale, logit_bias: (1,) each.
        chosen: (B, Q) int64: which texts each image meets.
        sign: (B, Q) float32 y: +1 for an image's own texts, else -1.

    Returns:
        (), float32.
    """
    loss: Tensor = _PoolingLoss.apply(
        queries, directions, keys, values, weight, bias, scale, logit_bias, chosen, sign
    )
    return loss


def _pool(
    keys: Tensor,
    values: Tensor,
    weight: Tensor,
    bias: Tensor,
    queries: Tensor,
    chosen: Tensor,
    images: slice,
) -> tuple[Tensor, Tensor]:
    """(n, Q, D) pooled features of some images, and what their heads mixed."""
    index = chosen[images]
    mixed = queries.new_empty(*index.shape, queries.shape[1])
    num_blocks = triton.cdiv(index.shape[1], BLOCK_QUERIES)
    attend[(*_per_head(keys[images]), num_blocks)](
        queries, index, keys[images], values[images], mixed, **_sizes(keys, chosen)
    )
    pooled = torch.addmm(bias, mixed.flatten(0, 1), weight.T)
    return pooled.view_as(mixed), mixed


def _run_loss(
    pooled: Tensor,
    saved: tuple[Tensor, ...],
    images: slice,
    out: Tensor,
    gradients: tuple[Tensor, Tensor, Tensor] | None = None,
) -> None:
    _, directions, _, _, _, _, scale, logit_bias, chosen, sign = saved
    grad_loss, grad_pairs, grad_logits = gradients or (out, out, out)  # unused in the forward
    num_pairs, width = pooled.shape[0] * pooled.shape[1], pooled.shape[2]
    pair_loss[(triton.cdiv(num_pairs, BLOCK_QUERIES),)](
        *(pooled, directions, chosen[images], sign[images], scale, logit_bias, grad_loss),
        *(out, grad_pairs, grad_logits, num_pairs, width, EPS),
        ROWS=BLOCK_QUERIES,
        COLUMNS=BLOCK_WIDTH,
        BACKWARD=gradients is not None,
    )


def _per_head(keys: Tensor) -> tuple[int]:
    return (keys.shape[0] * keys.shape[1],)


def _sizes(keys: Tensor, chosen: Tensor) -> dict[str, Any]:
    _, heads, num_tokens, channels = keys.shape
    return {
        "num_queries": chosen.shape[1],
        "num_tokens": num_tokens,
        "temperature": channels**-0.5,
        "HEADS": heads,
        "CHANNELS": channels,
        "ROWS": BLOCK_QUERIES,
        "TOKENS": max(MIN_SIDE, triton.next_power_of_2(num_tokens)),
        "PADDED": max(MIN_SIDE, triton.next_power_of_2(channels)),
    }


def _turns(chosen: Tensor, width: int) -> Iterator[slice]:
    """Images whose pairs fit into a buffer, turn by turn."""
    at_once = max(1, MAX_BUFFER // (chosen.shape[1] * width))
    for start in range(0, len(chosen), at_once):
        yield slice(start, start + at_once)
