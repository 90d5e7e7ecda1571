"""Linear layers, on CPUs by the library that is faster at them."""

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
    result: Tensor = _Linear.apply(x.reshape(-1, x.shape[-1]), weight, bias)
    return result.view(*x.shape[:-1], len(weight))


class _Linear(torch.autograd.Function):
    """The gradient of the weight is left to MKL: oneDNN would need both factors transposed."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(rows, weight)
        return _product(rows, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        rows, weight = ctx.saved_tensors
        needs_rows, needs_weight, needs_bias = ctx.needs_input_grad
        grad = grads[0].contiguous()
        return (
            _product(grad, weight.T, None) if needs_rows else None,
            grad.T @ rows if needs_weight else None,
            grad.sum(dim=0) if needs_bias else None,
        )


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
