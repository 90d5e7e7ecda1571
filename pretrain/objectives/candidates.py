"""Which texts an image meets where it does not meet all of them (FLAIR, CAFT)."""

import torch
from torch import Tensor


def own_and_drawn(drawn: Tensor, num_texts: int) -> Tensor:
    """(B, B) drawn texts -> (B, K + B - 1) flat numbers: an image's own texts, then the others'."""
    batch = len(drawn)
    images = torch.arange(batch, device=drawn.device)
    own = images.unsqueeze(1) * num_texts + torch.arange(num_texts, device=drawn.device)
    # The other images in their order: one of them has the image's own number, and those from
    # there on are shifted by one.
    others = images[:-1] + (images[:-1] >= images.unsqueeze(1))
    return torch.cat([own, others * num_texts + drawn.gather(1, others)], dim=1)


def owned(chosen: Tensor, num_texts: int) -> Tensor:
    """(B, Q) flat numbers of texts -> (B, Q) bool, True where a text is the image's own."""
    rows = torch.arange(len(chosen), device=chosen.device)
    return chosen // num_texts == rows.unsqueeze(1)
