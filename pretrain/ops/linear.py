"""Linear layers, on CPUs by the library that is faster at them."""

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

    On several CPU threads in float32 it is computed as a 1x1 convolution: torch gives that to
    oneDNN, and the product of matrices to MKL, which takes 1.2 to 1.5 times as long on AMD's
    processors (docs/performance.md).
    """
    if not _is_for_onednn(x):
        return F.linear(x, weight, bias)
    rows = x.reshape(-1, x.shape[-1]).contiguous()
    # (1, in, rows, 1) in the memory of channels-last, which is that of the rows.
    result = F.conv2d(rows[None, :, None].permute(0, 3, 1, 2), weight[:, :, None, None], bias)
    return result.permute(0, 2, 3, 1).reshape(*x.shape[:-1], len(weight))


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
