"""Which texts an image meets where it does not meet all of them (FLAIR, CAFT)."""

import torch
from torch import Tensor


def draw_texts(batch: int, num_texts: int, generator: torch.Generator | None) -> Tensor:
    """(B, B) which of its K texts image j shows to image i; a byte each, as long as K allows.

    The numbers are those of one draw of all of them as int64, which is never held.
    """
    dtype = torch.uint8 if num_texts <= 256 else torch.int64
    drawn = torch.empty(batch, batch, dtype=dtype)
    for row in drawn:
        row.copy_(torch.randint(num_texts, (batch,), generator=generator))
    return drawn


def own_and_drawn(drawn: Tensor, num_texts: int, first: int = 0) -> Tensor:
    """Flat numbers of the texts that some images meet: their own, then one of each other image.

    Args:
        drawn: (n, B) which text of each image the images `first` to `first + n - 1` of B meet.

    Returns:
        (n, K + B - 1) int64.
    """
    num_rows, batch = drawn.shape
    images = torch.arange(first, first + num_rows, device=drawn.device).unsqueeze(1)
    own = images * num_texts + torch.arange(num_texts, device=drawn.device)
    # The other images in their order: one of them has the image's own number, and those from
    # there on are shifted by one.
    others = torch.arange(batch - 1, device=drawn.device)
    others = others + (others >= images)
    return torch.cat([own, others * num_texts + drawn.gather(1, others)], dim=1)


def owned(chosen: Tensor, num_texts: int, first: int = 0) -> Tensor:
    """(n, Q) flat numbers of texts -> (n, Q) bool, True where a text is the image's own.

    The images are those from `first` on.
    """
    rows = torch.arange(first, first + len(chosen), device=chosen.device)
    return chosen // num_texts == rows.unsqueeze(1)
