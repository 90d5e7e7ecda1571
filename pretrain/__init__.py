"""Pretraining of hierarchical vision-language encoders on long captions.

import pretrain
model = pretrain.load("release")
scores = model.similarity(["picture.jpg"], ["A long caption. Of several sentences."])
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pretrain.release.listing import ModelRecord
    from pretrain.release.model import ReleasedModel

# Imported late: importing a part of this package must not import all of torch.


def load(
    source: Path | str, verify: bool | None = None, image_size: int | None = None
) -> "ReleasedModel":
    """Opens a released model, a folder or `hf://OWNER/NAME`; see `pretrain.release.model.load`."""
    from pretrain.release.model import load as load_release

    return load_release(source, verify, image_size)


def list_models(folder: Path | str) -> "list[ModelRecord]":
    """The releases in a folder; see `pretrain.release.listing.list_models`."""
    from pretrain.release.listing import list_models as list_releases

    return list_releases(folder)
