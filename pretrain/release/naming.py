"""What a release is called: architecture, data, samples seen and images a step.

``CAFT-B-16-CC3M-s90M-b2K`` is CAFT's base size on cells of 16 pixels, which has seen 90 million
samples of CC3M at 2,048 a step. What is not known is left out.
"""

import os
import re
from pathlib import PurePosixPath

from pretrain.config import PretrainConfig
from pretrain.models.registry import ImageConfig

_METHODS = {"caft": "CAFT", "flair": "FLAIR", "clip": "CLIP", "siglip": "SigLIP"}
#: (width, blocks) of the vision transformers that the field has names for (arXiv 2010.11929,
#: 2012.12877, 2106.04560).
_VIT_SIZES = {
    (192, 12): "Ti",
    (384, 12): "S",
    (768, 12): "B",
    (1024, 24): "L",
    (1280, 32): "H",
    (1408, 40): "g",
    (1664, 48): "G",
}
#: The same of CAFT's hierarchical encoder: `configs/model/caft_*.yaml`.
_HIERARCHICAL_SIZES = {(96, 7): "Ti", (384, 11): "S", (768, 11): "B", (960, 24): "L"}
#: Folders that are called so by what is in them, not by where it comes from; and places.
_NO_DATA_NAMES = {"", "train", "val", "packed", "shards", "data", "mds", "unknown", ".."}
_HOMES = {PurePosixPath("/home"), PurePosixPath("/Users")}


def release_name(
    config: PretrainConfig,
    data: str | None,
    num_samples_seen: int | None,
    global_batch: int | None,
    is_mean: bool = False,
) -> str:
    """The name of a release.

    Args:
        config: of the run.
        data: name of the training data.
        num_samples_seen: by the released weights.
        global_batch: images a step, of all ranks.
        is_mean: whether the weights are the running mean, which the name then says.
    """
    parts = [architecture_name(config)]
    named = re.sub(r"[^\w.]+", "_", data or "").strip("._")
    if named:
        parts.append(named)
    if num_samples_seen:
        parts.append(f"s{short_count(num_samples_seen)}")
    if global_batch:
        parts.append(f"b{_short_batch(global_batch)}")
    return "-".join([*parts, "ema"] if is_mean else parts)


def architecture_name(config: PretrainConfig) -> str:
    """``CAFT-B-16``: method, size of the image encoder, side of its cells in pixels.

    A size that has no name is told by width and blocks: ``CLIP-w96d10-8``.
    """
    method = _METHODS.get(config.objective.name, config.objective.name.upper())
    return f"{method}-{_size_name(config.model.image)}-{_cell_size(config.model.image)}"


def data_name(train: str) -> str | None:
    """What the training shards are called: their folder, or what holds a folder ``train``.

    None where both say only what is in them: ``packed/train``.
    """
    for folder in (PurePosixPath(train), PurePosixPath(train).parent):
        is_scheme = folder.name.endswith(":")  # of an address
        if folder.name.lower() not in _NO_DATA_NAMES and not is_scheme and not _is_home(folder):
            return folder.name
    return None


def _is_home(folder: PurePosixPath) -> bool:
    """Somebody's, who need not be whoever runs this: it is called after a person."""
    own = PurePosixPath(os.environ.get("HOME", "/root"))
    return folder.name.startswith("~") or folder == own or bool({folder, folder.parent} & _HOMES)


def short_count(number: int) -> str:
    """``90_347_520`` -> ``90M``; below ten with one decimal: ``1_280_000`` -> ``1.3M``."""
    value, letters = float(number), iter("KMBT")
    letter = ""
    while value >= 999.5:
        value, letter = value / 1000, next(letters)
    digits = f"{value:.0f}" if value >= 9.95 or not letter else f"{value:.1f}"
    return digits.removesuffix(".0") + letter


def _short_batch(number: int) -> str:
    """Powers of two count in 1,024s, as the field writes them: ``32_768`` -> ``32K``."""
    is_power_of_two = number & (number - 1) == 0
    return f"{number // 1024}K" if is_power_of_two and number >= 1024 else short_count(number)


def _size_name(image: ImageConfig) -> str:
    if image.name == "vit":
        size, names = (image.vit.width, image.vit.depth), _VIT_SIZES
    else:
        size, names = (
            (image.hierarchical.width, sum(image.hierarchical.depths)),
            _HIERARCHICAL_SIZES,
        )
    return names.get(size, f"w{size[0]}d{size[1]}")


def _cell_size(image: ImageConfig) -> int:
    vit, superpixels = image.vit, image.hierarchical.superpixels
    return vit.patch_size if image.name == "vit" else superpixels.cell_size
