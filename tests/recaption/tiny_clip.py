"""An architecture of open_clip's own kinds, small enough for a test, and weights of it."""

from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file

NAME = "test-tiny-clip"
_CONFIG = (
    '{"embed_dim": 16, "vision_cfg": {"image_size": 32, "layers": 2, "width": 64,'
    ' "head_width": 32, "patch_size": 8}, "text_cfg": {"context_length": 77,'
    ' "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}}'
)


def write_tiny_clip(folder: Path) -> Path:
    """Makes the architecture known to open_clip in this process; returns the weights' path."""
    config = folder / f"{NAME}.json"
    config.write_text(_CONFIG)
    open_clip.add_model_config(config)
    torch.manual_seed(0)
    state = open_clip.create_model(NAME).state_dict()
    weights = folder / "tiny.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, weights)
    return weights
