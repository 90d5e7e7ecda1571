"""BatchNorm, ReLU and a convolution, lean in what they keep."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from pretrain.ops.batch_norm import BatchNorm2d, normalise


def normed_convolution(x: Tensor, norm: BatchNorm2d, convolution: nn.Conv2d) -> Tensor:
    """``convolution(relu(norm(x)))`` that does not keep what it convolves.

    The gradient of the convolution's weight needs it, and the backward computes it again from
    `x`, which is kept anyway, and the statistics of all ranks, which are asked for once. `norm`
    stages them once. Under autocast the products, and what is kept for them, are in its precision.
    To a compiler it is as it reads.

    Args:
        x: (B, C, H, W).
        norm: of C channels.
        convolution: without a bias, in one group, padded with zeros.

    Returns:
        (B, C', H', W').
    """
    assert convolution.bias is None and convolution.groups == 1
    hidden_is_free = torch.compiler.is_compiling() or not torch.is_grad_enabled()
    # Without the batch's statistics it is rarely trained; then torch's own way will do.
    if hidden_is_free or not norm.training:
        return convolution(F.relu(norm(x), inplace=True))
    result: Tensor = _NormedConvolution.apply(
        x, norm.weight, norm.bias, convolution.weight, norm, convolution
    )
    return result


class _NormedConvolution(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        shift: Tensor,
        weight: Tensor,
        norm: BatchNorm2d,
        convolution: nn.Conv2d,
    ) -> Tensor:
        ctx.save_for_backward(x, scale, shift, weight)
        ctx.eps, ctx.convolution = norm.eps, convolution
        hidden: Tensor = F.relu(norm(x), inplace=True)
        ctx.statistics = norm.staged
        device = x.device.type
        is_cast = torch.is_autocast_enabled(device)
        ctx.dtype = torch.get_autocast_dtype(device) if is_cast else hidden.dtype
        # Cast here and not by autocast, which would keep its copy of a weight without its history.
        with torch.autocast(device, enabled=False):
            result: Tensor = F.conv2d(
                hidden.to(ctx.dtype),
                weight.to(ctx.dtype),
                None,
                convolution.stride,
                convolution.padding,
                convolution.dilation,
            )
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        *inputs, weight = ctx.saved_tensors
        inputs = [x.detach().requires_grad_() for x in inputs]
        with torch.enable_grad():
            x, scale, shift = inputs
            hidden = normalise(x, scale, shift, ctx.eps, ctx.statistics).relu_()
        convolution = ctx.convolution
        grad_of_hidden, grad_of_weight, _ = torch.ops.aten.convolution_backward(
            grads[0],
            hidden.detach().to(ctx.dtype),
            weight.to(ctx.dtype),
            None,
            convolution.stride,
            convolution.padding,
            convolution.dilation,
            False,
            [0, 0],
            1,
            [True, True, False],
        )
        grads_of_inputs = torch.autograd.grad(hidden, inputs, grad_of_hidden.to(hidden.dtype))
        return *grads_of_inputs, grad_of_weight.to(weight.dtype), None, None
