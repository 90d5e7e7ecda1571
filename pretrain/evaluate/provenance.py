"""What figures were made from: which weights, which data, which code."""

import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from recaption.common.files import read_json, sha256_file

DISTRIBUTION = "canopy-vlp"


def describe_weights(weights: Path) -> dict[str, Any]:
    """A file of weights in a checkpoint or release folder."""
    step = re.fullmatch(r"step-(\d+)", weights.parent.name)
    return {
        "folder": weights.parent.name,
        "file": weights.name,
        "step": int(step[1]) if step else None,
        "sha256": sha256_file(weights),
    }


def describe_data(folder: Path) -> dict[str, Any]:
    """A folder of MDS shards: the checksum of its index, and of every shard the index names."""
    index = read_json(folder / "index.json")
    shards = [shard["raw_data"]["basename"] for shard in index["shards"]]
    return {
        "folder": folder.name,
        "num_samples": sum(shard["samples"] for shard in index["shards"]),
        "sha256": {name: sha256_file(folder / name) for name in ("index.json", *shards)},
    }


def describe_code() -> dict[str, Any]:
    """Version of the package if it is installed, and the commit if it runs from a checkout."""
    try:
        installed = version(DISTRIBUTION)
    except PackageNotFoundError:
        installed = None
    return {
        "version": installed,
        "commit": _commit(Path(__file__).parent),
        "torch": torch.__version__,
    }


def _commit(folder: Path) -> str | None:
    """The commit of the checkout that holds `folder`, `+` behind it if files were changed.

    None for an installed package, though its environment may lie inside some other repository.
    """
    try:
        _git(folder, "ls-files", "--error-unmatch", Path(__file__).name)
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changed else "")


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
