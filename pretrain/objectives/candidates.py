"""Which texts an image meets where it does not meet all of them (FLAIR, CAFT)."""

import torch
from torch import Tensor


def own_and_drawn(drawn: Tensor, num_texts: int) -> Tensor:
    """(B, B) drawn texts -> (B, K + B - 1) flat numbers: an image's own texts, then the others'."""
    batch = len(drawn)
    images = torch.arange(batch, device=drawn.device)
    own = images.unsqueeze(1) * num_texts + torch.arange(num_texts, device=drawn.device)
    others = images * num_texts + drawn
    off_diagonal = ~torch.eye(batch, dtype=torch.bool, device=drawn.device)
    return torch.cat([own, others[off_diagonal].view(batch, batch - 1)], dim=1)


def owned(candidates: Tensor, num_texts: int) -> Tensor:
    """(B, Q) flat numbers of texts -> (B, Q) bool, True where a text is the image's own."""
    rows = torch.arange(len(candidates), device=candidates.device)
    return candidates // num_texts == rows.unsqueeze(1)
