"""Pretraining of hierarchical vision-language encoders on long captions.

import pretrain
model = pretrain.load("release")
scores = model.similarity(["picture.jpg"], ["A long caption. Of several sentences."])
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pretrain.release.model import ReleasedModel


def load(
    folder: Path | str, verify: bool = False, image_size: int | None = None
) -> "ReleasedModel":
    """Opens a released model on the CPU, offline; see `pretrain.release.model.load`."""
    # Imported late: importing a part of this package must not import all of torch.
    from pretrain.release.model import load as load_release

    return load_release(folder, verify, image_size)
