"""Linear layers, on CPUs by the library that is faster at them, and lean in what they keep."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from pretrain.ops.recompute import is_recomputed

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
    if not torch.is_grad_enabled():
        return _by_convolution(x, weight, bias)
    # First what the gradients need, then the product: what is computed again in a backward ends
    # with the last thing to be kept, and needs no product behind it.
    kept = _Kept.apply(weight, bias, x)
    result: Tensor = _Product.apply(
        kept, weight.detach(), None if bias is None else bias.detach(), x.detach()
    )
    return result


def linear_of(
    function: Callable[..., Tensor], weight: Tensor, bias: Tensor | None, *inputs: Tensor | None
) -> Tensor:
    """``linear(function(*inputs), weight, bias)`` that does not keep what `function` gives.

    The gradient of `weight` needs it, and the backward computes it again from the `inputs`, which
    are kept anyway. For functions that cost little beside a product: norms, activations. To a
    compiler it is as it reads, for it chooses by itself what to keep; and so it is within what is
    computed again as a whole (`recomputed`), where nothing is kept for long.

    Gradients have no gradients of their own: asking for them raises.

    Args:
        function: called twice, so it must not draw at random.
        weight: (out, in).
        bias: (out,).
        inputs: what `function` takes.
    """
    if torch.compiler.is_compiling() or not torch.is_grad_enabled() or is_recomputed():
        return linear(function(*inputs), weight, bias)
    result: Tensor = _LinearOf.apply(function, weight, bias, *inputs)
    return result


def normed_linear(x: Tensor, norm: nn.LayerNorm, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``linear(norm(x), weight, bias)`` that does not keep what `norm` gives."""

    def layer_norm(x: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
        return F.layer_norm(x, norm.normalized_shape, scale, shift, norm.eps)

    return linear_of(layer_norm, weight, bias, x, norm.weight, norm.bias)


class _Kept(torch.autograd.Function):
    """Keeps what the gradients of a linear layer need; its result stands for the product."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, weight: Tensor, bias: Tensor | None, x: Tensor
    ) -> Tensor:
        ctx.save_for_backward(weight, x)
        return x.new_zeros(()).expand(*x.shape[:-1], len(weight))

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        weight, x = ctx.saved_tensors
        grad = _flat(grad)
        needs_weight, needs_bias, needs_x = ctx.needs_input_grad
        grad_of_weight = _grad_of_weight(grad, x, weight) if needs_weight else None
        grad_of_bias = grad.sum(dim=0) if needs_bias else None
        return grad_of_weight, grad_of_bias, _grad_of_rows(grad, x, weight) if needs_x else None


class _Product(torch.autograd.Function):
    """The product that `_Kept` stands for, and whose gradient is its own."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, kept: Tensor, weight: Tensor, bias: Tensor | None, x: Tensor
    ) -> Tensor:
        return _by_convolution(x, weight, bias)

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor, None, None, None]:
        return grad, None, None, None


class _LinearOf(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        function: Callable[..., Tensor],
        weight: Tensor,
        bias: Tensor | None,
        *inputs: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(weight, *inputs)
        ctx.function = function
        ctx.bias_dtype = None if bias is None else bias.dtype
        device = weight.device.type
        ctx.autocast = None
        if torch.amp.is_autocast_available(device):
            enabled = torch.is_autocast_enabled(device)
            ctx.autocast = (device, torch.get_autocast_dtype(device), enabled)
        rows = function(*inputs)
        product = _by_convolution if _is_for_onednn(rows) else F.linear
        return product(rows, weight, bias)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        weight, *inputs = ctx.saved_tensors
        _, needs_weight, needs_bias, *needs_inputs = ctx.needs_input_grad
        inputs = [
            x if x is None else x.detach().requires_grad_(needed)
            for x, needed in zip(inputs, needs_inputs, strict=True)
        ]
        autocast = torch.autocast(*ctx.autocast) if ctx.autocast else nullcontext()
        with torch.enable_grad(), autocast:
            rows = ctx.function(*inputs)
        grad = _flat(grad)
        grad_of_weight = _grad_of_weight(grad, rows.detach(), weight) if needs_weight else None
        grad_of_bias = grad.sum(dim=0).to(ctx.bias_dtype) if needs_bias else None
        grads_of_inputs: list[Tensor | None] = [None] * len(inputs)
        if any(needs_inputs):
            wanted = [x for x, needed in zip(inputs, needs_inputs, strict=True) if needed]
            found = iter(torch.autograd.grad(rows, wanted, _grad_of_rows(grad, rows, weight)))
            grads_of_inputs = [next(found) if needed else None for needed in needs_inputs]
        return None, grad_of_weight, grad_of_bias, *grads_of_inputs


def _grad_of_weight(grad: Tensor, rows: Tensor, weight: Tensor) -> Tensor:
    """Of `rows` (..., in), from that of the product (R, out).

    Left to MKL: oneDNN would need both factors transposed.
    """
    return (grad.T @ _flat(rows).to(grad.dtype)).to(weight.dtype)


def _grad_of_rows(grad: Tensor, rows: Tensor, weight: Tensor) -> Tensor:
    product = _by_convolution if _is_for_onednn(grad) else F.linear
    return product(grad, weight.to(grad.dtype).T, None).view_as(rows).to(rows.dtype)


def _by_convolution(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(..., in) and (out, in) -> (..., out)."""
    # (1, in, R, 1) in the memory of channels-last, which is that of the rows.
    image = _flat(x)[None, :, None].permute(0, 3, 1, 2)
    result = F.conv2d(image, weight.contiguous()[:, :, None, None], bias)
    return result.permute(0, 2, 3, 1).reshape(*x.shape[:-1], len(weight))


def _flat(x: Tensor) -> Tensor:
    """(..., C) -> (R, C), in one piece."""
    return x.reshape(-1, x.shape[-1]).contiguous()


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
