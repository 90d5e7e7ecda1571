"""How packed texts lie for attention: no padding, neither stored nor computed.

On a GPU in half precision a fused kernel takes texts of any length as they come. Elsewhere texts of
the same length are laid together, and each such group is one dense attention.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

#: (number of texts, tokens of each) of every run of equally long texts.
Groups = list[tuple[int, int]]


@dataclass
class Packing:
    """A layout of R packed texts of T tokens in all."""

    offsets: Tensor
    """(R + 1,) int32: first token of each text, then T, in the layout's order."""
    positions: Tensor
    """(T,) int64: place of each token within its text."""
    ends: Tensor
    """(R,) int64: place of the last token of each text."""
    max_length: int
    """No text is longer, in tokens."""
    groups: Groups | None = None
    """The runs of equally long texts, shortest first; None: texts as they came."""
    order: Tensor | None = None
    """(T,) int64: which token, as they came, stands at each place."""
    rank: Tensor | None = None
    """(R,) int64: where each text, as they came, stands in the layout."""

    def arrange(self, tokens: Tensor) -> Tensor:
        """(T, ...) tokens as they came -> in the layout's order."""
        return tokens if self.order is None else tokens[self.order]

    def restore(self, texts: Tensor) -> Tensor:
        """(R, ...) texts in the layout's order -> as they came."""
        return texts if self.rank is None else texts[self.rank]


def pack_as_they_come(offsets: Tensor, num_tokens: int, max_length: int) -> Packing:
    """For the fused kernel; nothing is asked of the device.

    Args:
        offsets: (R + 1,) int64, first token of each text, then the number of tokens T.
        num_tokens: T.
        max_length: no text is longer, in tokens.
    """
    starts = offsets[:-1].repeat_interleave(offsets.diff(), output_size=num_tokens)
    positions = torch.arange(num_tokens, device=offsets.device) - starts
    return Packing(offsets.int(), positions, offsets[1:] - 1, max_length)


def pack_by_length(offsets: Tensor) -> Packing:
    """Texts of the same length together, shortest first; see `pack_as_they_come`."""
    lengths = offsets.diff()
    by_length = lengths.argsort(stable=True)
    sorted_lengths = lengths[by_length]
    ends = sorted_lengths.cumsum(0)
    starts = (ends - sorted_lengths).repeat_interleave(sorted_lengths)
    positions = torch.arange(len(starts), device=offsets.device) - starts
    order = positions + offsets[:-1][by_length].repeat_interleave(sorted_lengths)
    rank = torch.empty_like(by_length)
    rank[by_length] = torch.arange(len(by_length), device=offsets.device)
    unique, counts = sorted_lengths.unique_consecutive(return_counts=True)
    groups = list(zip(counts.tolist(), unique.tolist(), strict=True))
    return Packing(
        torch.cat([ends.new_zeros(1), ends]).int(),
        positions,
        ends - 1,
        groups[-1][1] if groups else 0,
        groups,
        order,
        rank,
    )
