"""Releases on a model hub by their names: ``hf://OWNER/NAME`` or ``hf://OWNER/NAME@REVISION``."""

import os
import re
from pathlib import Path

from pretrain.checksums import SUMS
from recaption.common.config import UserError

SCHEME = "hf://"
#: What opening a release reads.
NEEDED = ("config.json", "model.safetensors", "tokenizer/*", SUMS)
#: All that belongs to a release. No file that could hold code or a pickle.
_ALL = (*NEEDED, "*.json", "*.md", "*.png", "*.safetensors")


def fetch(name: str, whole: bool = False) -> Path:
    """Downloads a release into the hub's cache, or takes it from there.

    Args:
        name: ``hf://OWNER/NAME[@REVISION]``; a revision is a branch, tag or commit.
        whole: all of its files, not only those that opening reads.

    Returns:
        its folder.

    Raises:
        UserError: the name is none, the hub does not have it, or cannot be reached.
    """
    match = re.fullmatch(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", name)
    if match is None:
        raise UserError(f"{name} is no name on a hub: write hf://OWNER/NAME[@REVISION]")
    repository, revision = match.groups()
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise UserError(f"{name} needs the package huggingface_hub: pip install it") from None
    try:
        folder = snapshot_download(
            repository,
            revision=revision,
            allow_patterns=list(_ALL if whole else NEEDED),
            # Asked for here: huggingface_hub reads it once, when it is imported.
            endpoint=os.environ.get("HF_ENDPOINT"),
        )
    except (OSError, ValueError) as error:  # of huggingface_hub, all of them
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{name} cannot be fetched ({reason}): check name and network, or give a folder"
        ) from None
    return Path(folder)
