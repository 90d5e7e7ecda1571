"""Multi-head self-attention, over dense sequences or over packed texts.

Packed texts of the same length stand together, each such group is one dense attention: no padding,
neither stored nor computed.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recaption.common.config import ConfigError

#: (number of texts, tokens of each) of every run of equally long texts in a packed row.
Groups = list[tuple[int, int]]


class Attention(nn.Module):
    """Multi-head self-attention with its projections.

    Args:
        width: channels, a multiple of `num_heads`.
        num_heads: heads.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        if width % num_heads:
            raise ConfigError(f"width {width} is not a multiple of its {num_heads} attention heads")
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor, causal: bool = False, groups: Groups | None = None) -> Tensor:
        """x: (B, N, width), or (T, width) packed texts with their `groups`, then always causal."""
        query, key, value = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).unbind(-3)
        if groups is None:
            mixed = dense_attention(query, key, value, causal)
        else:
            mixed = packed_causal_attention(query, key, value, groups)
        projected: Tensor = self.project(mixed.flatten(-2))
        return projected


def dense_attention(query: Tensor, key: Tensor, value: Tensor, causal: bool) -> Tensor:
    """(B, N, heads, channels) each -> (B, N, heads, channels)."""
    mixed = F.scaled_dot_product_attention(
        query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), is_causal=causal
    )
    return mixed.transpose(1, 2)


def packed_causal_attention(query: Tensor, key: Tensor, value: Tensor, groups: Groups) -> Tensor:
    """Causal attention within each text.

    Args:
        query, key, value: (T, heads, channels), tokens in the order of `sort_by_length`.
        groups: its runs of equally long texts.

    Returns:
        (T, heads, channels).
    """
    # Split at once: the gradient of a slice is a whole row of zeros around it, for each group.
    sizes = [count * length for count, length in groups]
    rows = (x.split(sizes) for x in (query, key, value))
    mixed = []
    for (count, length), *qkv in zip(groups, *rows, strict=True):
        q, k, v = (x.unflatten(0, (count, length)) for x in qkv)
        mixed.append(dense_attention(q, k, v, causal=True).flatten(0, 1))
    return torch.cat(mixed)


def sort_by_length(offsets: Tensor) -> tuple[Tensor, Tensor, Groups]:
    """An order of packed tokens in which texts of the same length stand together.

    Args:
        offsets: (R+1,) int64, first token of each text, then the total number of tokens T.

    Returns:
        order: (T,) int64, which packed token comes at each place.
        last: (R,) int64, place of the last token of each text, in the order of the offsets.
        groups: the runs of equally long texts, shortest first.
    """
    lengths = offsets.diff()
    by_length = lengths.argsort(stable=True)
    sorted_lengths = lengths[by_length]
    ends = sorted_lengths.cumsum(0)
    last = torch.empty_like(ends).scatter_(0, by_length, ends - 1)
    shift = (offsets[:-1][by_length] - (ends - sorted_lengths)).repeat_interleave(sorted_lengths)
    order = torch.arange(len(shift), device=offsets.device) + shift
    unique, counts = sorted_lengths.unique_consecutive(return_counts=True)
    return order, last, list(zip(counts.tolist(), unique.tolist(), strict=True))
