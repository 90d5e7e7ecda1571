"""BatchNorm over the batch of all ranks, whose running statistics move when the step is accepted.

Normalised by its own batch, a rank would train another network than one process with all samples,
and so would a micro-batch. torch's SyncBatchNorm runs on GPUs only.
"""

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class Statistics(NamedTuple):
    """Of each channel of a batch, over all ranks: (C,) tensors, in float32 for half precision."""

    mean: Tensor
    unbiased_variance: Tensor
    """What the running variance is made of."""
    variance: Tensor | None
    """What the batch is normalised by; None on one rank, where torch's kernels compute it."""


class BatchNorm2d(nn.BatchNorm2d):
    """As torch's, but that in training

    - mean and variance are those of the batches of all ranks of the default process group, which
      must be of equal size. One rank's results are torch's, by torch's kernels;
    - the running statistics wait: a forward only stages its batch's statistics, in the place of
      those of the forward before. `commit_statistics` moves the running ones, once a step, however
      often the step's forward was computed; `discard_statistics` forgets them.

    Gradients follow `pretrain.distributed.exchange`: that of the input is d(sum of all ranks'
    losses)/d(own input), those of weight and bias are the rank's own share, to be averaged over
    ranks. Every rank must run forward and backward alike. Batches of several ranks break a
    compiler's graph.
    """

    #: Of the last forward in training, until they are committed or discarded.
    staged: Statistics | None = None

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        if num_ranks() > 1:
            return self._over_ranks(input)
        mean, variance = _zeros(input, 2).unbind()
        # A momentum of 1 writes the batch's own statistics to where the running ones would be.
        result = F.batch_norm(
            input, mean, variance, self.weight, self.bias, training=True, momentum=1, eps=self.eps
        )
        self.staged = Statistics(mean, variance, None)
        return result

    @torch.compiler.disable
    def _over_ranks(self, input: Tensor) -> Tensor:
        assert self.affine
        self.staged = global_statistics(input)
        return normalise(input, self.weight, self.bias, self.eps, self.staged)


def commit_statistics(module: nn.Module) -> None:
    """Moves the running statistics of all `BatchNorm2d` in `module` by what their last forward saw.

    To be called once a step, when it is known to count; what was staged is cleared. Statistics that
    are not finite are left out. As all ranks have staged the same, all move alike.
    """
    for norm in _batch_norms(module):
        if norm.staged is not None and norm.running_mean is not None:
            _move(norm, norm.staged)
        norm.staged = None


def discard_statistics(module: nn.Module) -> None:
    """Forgets what was staged: the step does not count."""
    for norm in _batch_norms(module):
        norm.staged = None


def _batch_norms(module: nn.Module) -> list[BatchNorm2d]:
    return [norm for norm in module.modules() if isinstance(norm, BatchNorm2d)]


@torch.no_grad()
def _move(norm: BatchNorm2d, staged: Statistics) -> None:
    assert norm.running_mean is not None and norm.running_var is not None
    assert norm.num_batches_tracked is not None
    # Chosen on the device, which need not be waited for.
    is_finite = torch.stack([staged.mean, staged.unbiased_variance]).isfinite().all()
    norm.num_batches_tracked += is_finite
    share: Any = 1 / norm.num_batches_tracked if norm.momentum is None else norm.momentum
    for running, new in (
        (norm.running_mean, staged.mean),
        (norm.running_var, staged.unbiased_variance),
    ):
        running.copy_(torch.where(is_finite, (1 - share) * running + share * new, running))


def num_ranks() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@torch.no_grad()
def global_statistics(x: Tensor) -> Statistics:
    """Of a (B, C, H, W) batch and those of the other ranks, by one all-gather of 2 C numbers."""
    num_channels = x.shape[1]
    # Without running statistics in float32 it would give half precision for half precision.
    own = torch.stack(torch.ops.aten.batch_norm_update_stats(x, *_zeros(x, 2), 0.0))
    of_ranks = own.new_empty(num_ranks() * 2, num_channels)
    dist.all_gather_single(of_ranks, own)
    means, variances = of_ranks.view(-1, 2, num_channels).unbind(1)
    mean = means.mean(dim=0)
    variance = (variances + (means - mean).square()).mean(dim=0)
    num_values = num_ranks() * x.numel() // num_channels
    return Statistics(mean, variance * (num_values / (num_values - 1)), variance)


def _zeros(x: Tensor, num_rows: int) -> Tensor:
    """(num_rows, C) of x (B, C, H, W), in float32 at least."""
    return x.new_zeros(num_rows, x.shape[1], dtype=torch.promote_types(x.dtype, torch.float32))


def normalise(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, statistics: Statistics
) -> Tensor:
    """(B, C, H, W) -> the same by the batch's `statistics`, whose gradients are in x's."""
    if statistics.variance is None:
        return F.batch_norm(x, None, None, weight, bias, training=True, eps=eps)
    result: Tensor = _Normalise.apply(x, weight, bias, statistics.mean, statistics.variance, eps)
    return result


class _Normalise(torch.autograd.Function):
    """With xhat = (x - mean) / std and means over all ranks' values of a channel:

    dx = weight / std * (dy - mean(dy) - xhat * mean(dy * xhat)).
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        variance: Tensor,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps = eps
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight, mean, variance = ctx.saved_tensors
        # As if the statistics were constants: weight / std * dy, sum(dy * xhat) and sum(dy).
        grad_of_x, *own_sums = torch.ops.aten.native_batch_norm_backward(
            grads[0], x, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        means = torch.stack(own_sums)
        dist.all_reduce(means)
        means /= num_ranks() * x.numel() // x.shape[1]
        scale, shift = -weight * torch.rsqrt(variance + ctx.eps) * means
        grad_of_x += F.batch_norm(x, mean, variance, scale, shift, training=False, eps=ctx.eps)
        return grad_of_x, *own_sums, None, None, None
