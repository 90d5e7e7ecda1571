"""Linear layers, on CPUs by the library that is faster at them, and lean in what they keep."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Fewer rows are not worth the detour.
MIN_ROWS = 128


class Linear(nn.Linear):
    """As torch's, by `linear`."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(..., in) -> (..., out), as torch's `linear`.

    On several CPU threads in float32 it goes by 1x1 convolutions, which torch gives to oneDNN;
    products of matrices it gives to MKL, which took 1.3 to 1.7 times as long on the two cores that
    we measured (docs/performance.md).
    """
    if not _is_for_onednn(x):
        return F.linear(x, weight, bias)
    result: Tensor = _LinearOf.apply(None, weight, bias, x)
    return result


def linear_of(
    function: Callable[..., Tensor], weight: Tensor, bias: Tensor | None, *inputs: Tensor
) -> Tensor:
    """``linear(function(*inputs), weight, bias)`` that does not keep what `function` gives.

    The gradient of `weight` needs it, and the backward computes it again from the `inputs`, which
    are kept anyway. For functions that cost little beside a product: norms, activations. To a
    compiler it is as it reads, for it chooses by itself what to keep.
    """
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return linear(function(*inputs), weight, bias)
    result: Tensor = _LinearOf.apply(function, weight, bias, *inputs)
    return result


def normed_linear(x: Tensor, norm: nn.LayerNorm, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``linear(norm(x), weight, bias)`` that does not keep what `norm` gives."""

    def layer_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return F.layer_norm(x, norm.normalized_shape, scale, shift, norm.eps)

    return linear_of(layer_norm, weight, bias, x, norm.weight, norm.bias)


class _LinearOf(torch.autograd.Function):
    """The gradient of the weight is left to MKL: oneDNN would need both factors transposed."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        function: Callable[..., Tensor] | None,
        weight: Tensor,
        bias: Tensor | None,
        *inputs: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(weight, *inputs)
        ctx.function = function
        ctx.bias_dtype = None if bias is None else bias.dtype
        device = weight.device.type
        ctx.autocast = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        rows = function(*inputs) if function else inputs[0]
        if not _is_for_onednn(rows):
            return F.linear(rows, weight, bias)
        result = _product(rows.reshape(-1, rows.shape[-1]), weight, bias)
        return result.view(*rows.shape[:-1], len(weight))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        weight, *inputs = ctx.saved_tensors
        _, needs_weight, needs_bias, *needs_inputs = ctx.needs_input_grad
        rows = inputs[0]
        if ctx.function:
            device, dtype, enabled = ctx.autocast
            inputs = [
                x.detach().requires_grad_(needed)
                for x, needed in zip(inputs, needs_inputs, strict=True)
            ]
            with torch.enable_grad(), torch.autocast(device, dtype, enabled):
                rows = ctx.function(*inputs)
        grad = grads[0].flatten(0, -2).contiguous()
        flat = rows.detach().flatten(0, -2).to(grad.dtype)
        grad_of_weight = (grad.T @ flat).to(weight.dtype) if needs_weight else None
        grad_of_bias = grad.sum(dim=0).to(ctx.bias_dtype) if needs_bias else None
        del flat
        grads_of_inputs: list[Tensor | None] = [None] * len(inputs)
        if any(needs_inputs):
            product = _product if _is_for_onednn(grad) else F.linear
            grad_of_rows = product(grad, weight.to(grad.dtype).T, None).view_as(rows).to(rows.dtype)
            if ctx.function:
                wanted = [x for x in inputs if x.requires_grad]
                found = iter(torch.autograd.grad(rows, wanted, grad_of_rows))
                grads_of_inputs = [next(found) if needed else None for needed in needs_inputs]
            else:
                grads_of_inputs = [grad_of_rows]
        return None, grad_of_weight, grad_of_bias, *grads_of_inputs


def _product(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(R, in) and (out, in) -> (R, out)."""
    # (1, in, R, 1) in the memory of channels-last, which is that of the rows.
    image = rows.contiguous()[None, :, None].permute(0, 3, 1, 2)
    result = F.conv2d(image, weight.contiguous()[:, :, None, None], bias)
    return result.permute(0, 2, 3, 1).reshape(len(rows), len(weight))


def _is_for_onednn(x: Tensor) -> bool:
    return (
        not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.numel() >= MIN_ROWS * x.shape[-1]
        and torch.get_num_threads() > 1
        and torch.backends.mkldnn.is_available()
        and not torch.is_autocast_enabled("cpu")
    )
