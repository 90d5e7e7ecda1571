"""Releases on a model hub by their names: ``hf://OWNER/NAME`` or ``hf://OWNER/NAME@REVISION``."""

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pretrain.checksums import SUMS
from recaption.common.config import UserError

SCHEME = "hf://"
#: What opening a release reads.
NEEDED = ("config.json", "model.safetensors", "tokenizer/*", SUMS)
#: All that belongs to a release. No file that could hold code or a pickle.
_ALL = (*NEEDED, "*.json", "*.md", "*.png", "*.safetensors")


def fetch(name: str, whole: bool = False, also: Collection[str] = (), **options: Any) -> Path:
    """Downloads a release into the hub's cache, or takes it from there.

    Args:
        name: ``hf://OWNER/NAME[@REVISION]``; a revision is a branch, tag or commit.
        whole: all of its files, not only those that opening reads.
        also: patterns of more files than those.
        options: of `huggingface_hub.snapshot_download`, such as `token`.

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
            allow_patterns=[*(_ALL if whole else NEEDED), *also],
            # Asked for here: huggingface_hub reads it once, when it is imported.
            endpoint=os.environ.get("HF_ENDPOINT"),
            **options,
        )
    except hub_errors() as error:
        raise UserError(
            f"{name} cannot be fetched ({why(error)}): check name and network, or give a folder"
        ) from None
    return Path(folder)


def hub_errors() -> tuple[type[Exception], ...]:
    """What huggingface_hub raises where a hub cannot be reached or refuses.

    Up to version 0.36 it asks by requests, whose errors are OSErrors, and from 1 on by httpx, whose
    errors are not; its own answer to a refusal descends from theirs.
    """
    from huggingface_hub.errors import HfHubHTTPError

    of_http = (kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")
    return (OSError, ValueError, *of_http)


def why(error: Exception) -> str:
    """One line of an error of huggingface_hub, whose first line is often a number alone."""
    lines = [line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()]
    return ": ".join(lines[:2]) or type(error).__name__
