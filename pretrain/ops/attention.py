"""Multi-head self-attention behind a LayerNorm, over dense sequences or over packed texts."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretrain.ops.linear import Linear, linear_of, normed_linear
from pretrain.ops.packing import Packing
from recaption.common.config import ConfigError


class Attention(nn.Module):
    """Multi-head self-attention with its projections.

    It is given the LayerNorm of its input, of which it keeps nothing (`normed_linear`).

    Args:
        width: channels, a multiple of `num_heads`.
        num_heads: heads.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        if width % num_heads:
            raise ConfigError(f"width {width} is not a multiple of its {num_heads} attention heads")
        self.num_heads = num_heads
        self.qkv = Linear(width, 3 * width)
        self.project = Linear(width, width)

    def forward(
        self, x: Tensor, norm: nn.LayerNorm, causal: bool = False, packing: Packing | None = None
    ) -> Tensor:
        """x: (B, N, width); or (T, width) packed texts with their `packing`, then always causal."""
        qkv = normed_linear(x, norm, self.qkv.weight, self.qkv.bias)
        query, key, value = self._heads(qkv, 3)
        if packing is None:
            return self._project(dense_attention(query, key, value, causal))
        return self._project(*packed_causal_attention(query, key, value, packing))

    def for_queries(
        self, queries: Tensor, x: Tensor, norm: nn.LayerNorm, packing: Packing | None = None
    ) -> Tensor:
        """What `forward` gives for some tokens, which see all others; only they ask.

        Args:
            queries: (B, Q, width) some of `x`; of packed texts (R, width) the last tokens.
            x: as in `forward`.
            norm: as in `forward`.
            packing: as in `forward`.

        Returns:
            the shape of `queries`.
        """
        width = x.shape[-1]
        weight, bias = self.qkv.weight, self.qkv.bias
        (query,) = self._heads(normed_linear(queries, norm, weight[:width], bias[:width]), 1)
        key, value = self._heads(normed_linear(x, norm, weight[width:], bias[width:]), 2)
        if packing is None:
            return self._project(dense_attention(query, key, value, causal=False))
        return self._project(*packed_end_attention(query, key, value, packing))

    def _project(self, *mixed: Tensor) -> Tensor:
        """(..., heads, channels) of all texts, or of one group of them after the other."""
        if len(mixed) == 1:
            projected: Tensor = self.project(mixed[0].flatten(-2))
            return projected
        return linear_of(_joined, self.project.weight, self.project.bias, *mixed)

    def _heads(self, x: Tensor, number: int) -> tuple[Tensor, ...]:
        """(..., number * width) -> `number` times (..., heads, channels)."""
        return x.unflatten(-1, (number, self.num_heads, -1)).unbind(-3)


def dense_attention(query: Tensor, key: Tensor, value: Tensor, causal: bool) -> Tensor:
    """(B, N, heads, channels) each -> (B, N, heads, channels)."""
    mixed = F.scaled_dot_product_attention(
        query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), is_causal=causal
    )
    return mixed.transpose(1, 2)


def packed_causal_attention(
    query: Tensor, key: Tensor, value: Tensor, packing: Packing
) -> list[Tensor]:
    """Causal attention within each text.

    (T, heads, channels) each -> as many rows, in one tensor or one for each group of the packing.
    """
    if packing.groups is None:
        return [_variable_length(query, key, value, packing.offsets, packing, causal=True)]
    # Split at once: the gradient of a slice is a whole row of zeros around it, for each group.
    sizes = [count * length for count, length in packing.groups]
    rows = (x.split(sizes) for x in (query, key, value))
    mixed = []
    for (count, length), *qkv in zip(packing.groups, *rows, strict=True):
        q, k, v = (x.unflatten(0, (count, length)) for x in qkv)
        mixed.append(dense_attention(q, k, v, causal=True).flatten(0, 1))
    return mixed


def packed_end_attention(
    query: Tensor, key: Tensor, value: Tensor, packing: Packing
) -> list[Tensor]:
    """Attention of one query a text over that text.

    Args:
        query: (R, heads, channels), texts in the order of the packing.
        key, value: (T, heads, channels).

    Returns:
        (R, heads, channels), in one tensor or one for each group of the packing.
    """
    if packing.groups is None:
        one_each = torch.arange(len(query) + 1, dtype=torch.int32, device=query.device)
        return [_variable_length(query, key, value, one_each, packing, causal=False)]
    queries = query.split([count for count, _ in packing.groups])
    sizes = [count * length for count, length in packing.groups]
    rows = (x.split(sizes) for x in (key, value))
    mixed = []
    for (count, length), q, k, v in zip(packing.groups, queries, *rows, strict=True):
        k, v = (x.unflatten(0, (count, length)) for x in (k, v))
        mixed.append(dense_attention(q.unsqueeze(1), k, v, causal=False).squeeze(1))
    return mixed


def _joined(*groups: Tensor) -> Tensor:
    """(N, heads, channels) each -> (their sum, width)."""
    return torch.cat(groups).flatten(1)


def has_variable_length_kernel(device: torch.device, head_width: int) -> bool:
    """Whether torch's fused kernel for texts of any length works here, in half precision."""
    if device.type != "cuda" or head_width % 8 or head_width > 256:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


def _variable_length(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_offsets: Tensor,
    packing: Packing,
    causal: bool,
) -> Tensor:
    """The fused kernel of GPUs; untimed."""
    # Imported late: only where it is used need torch be so new.
    from torch.nn.attention.varlen import varlen_attn

    mixed = varlen_attn(
        query,
        key,
        value,
        query_offsets,
        packing.offsets,
        packing.max_length if causal else 1,
        packing.max_length,
        window_size=(-1, 0) if causal else (-1, -1),
    )
    assert isinstance(mixed, Tensor)
    return mixed
