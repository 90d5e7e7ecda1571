"""Encoders with random weights: Canopy's and open_clip's."""

import json
from pathlib import Path

import open_clip
import torch
from open_clip import factory
from safetensors.torch import save_file

from pretrain.evaluate.canopy_encoders import CanopyEncoders
from pretrain.inference import load_for_inference
from tests.pretrain.trainruns import TINY
from tests.pretrain.untrained import write_run

TINY_OPEN_CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def write_open_clip(folder: Path, name: str = "canopy-tiny") -> tuple[Path, Path]:
    """(configuration, weights) of a tiny model of open_clip."""
    folder.mkdir(parents=True, exist_ok=True)
    config, weights = folder / f"{name}.json", folder / "weights.safetensors"
    config.write_text(json.dumps(TINY_OPEN_CLIP))
    factory.add_model_config(config)
    torch.manual_seed(0)
    save_file(open_clip.create_model(name).state_dict(), weights)
    return config, weights


def canopy_encoders(
    folder: Path,
    config: str = TINY,
    alpha: float | None = None,
    num_candidates: int | None = None,
) -> CanopyEncoders:
    inference = load_for_inference(write_run(folder, config))
    return CanopyEncoders(inference, "tiny", alpha, num_candidates)
