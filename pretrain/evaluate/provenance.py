"""What figures were made from: which weights, which data, which code."""

import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from recaption.common.files import read_json, sha256_file

DISTRIBUTION = "canopy-vlp"
#: They open and scale pictures, cut texts, and bring names of classes, prompts and masks.
_LIBRARIES = (
    *("numpy", "open_clip_torch", "pi-heif", "pillow", "pycocotools", "scikit-image"),
    *("timm", "tokenizers", "torchvision", "transformers"),
)


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


def describe_libraries() -> dict[str, str | None]:
    """Versions of what decodes, prepares and names; None: not installed."""
    return {name: _version(name) for name in _LIBRARIES}


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def describe_machine(num_ranks: int) -> dict[str, Any]:
    """What figures may depend on in their last digits: sums are rounded by how they are shared."""
    is_gpu = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if is_gpu else platform.machine(),
        "num_threads": torch.get_num_threads(),
        "num_ranks": num_ranks,
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
