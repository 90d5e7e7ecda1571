"""Runs with random weights and small sets with boxes: what evaluation and release are tested on."""

import io
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from streaming import MDSWriter
from torch import nn

from pretrain.config import PretrainConfig
from pretrain.models.registry import build_model
from pretrain.objectives.registry import build_objective
from recaption.common.config import load_config, write_config
from recaption.pack import COLUMNS
from tests.pretrain.trainruns import COLORS, TINY

#: The same sizes for CLIP on a plain vision transformer.
TINY_CLIP = """
model:
  embed_dim: 24
  image: {name: vit, size: 32, vit: {width: 24, num_heads: 2, depth: 1, patch_size: 8}}
  text: {name: plain, part: {width: 24, num_layers: 1, num_heads: 2, context_length: 32}}
objective: {name: clip}
data: {captions: {name: whole}}
"""


def write_run(folder: Path, config: str = TINY, *overrides: str, step: int = 7) -> Path:
    """A run folder with one complete checkpoint of random weights, and metrics of a few steps."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "source.yaml"
    source.write_text(config)
    settings = [str(source), f"run={folder}", f"data.train={folder / 'train'}", *overrides]
    resolved = load_config(PretrainConfig, settings)
    write_config(resolved, folder / "config.yaml")
    torch.manual_seed(step)
    modules = nn.ModuleDict(
        {
            "model": build_model(resolved.model),
            "objective": build_objective(resolved.objective, resolved.model.embed_dim),
        }
    )
    checkpoint = folder / "checkpoints" / f"step-{step:08d}"
    checkpoint.mkdir(parents=True)
    save_file(modules.state_dict(), checkpoint / "model.safetensors")
    (checkpoint / "state.json").write_text(json.dumps({"step": step, "num_samples_seen": 8 * step}))
    (checkpoint / "COMPLETE").touch()
    rows = [{"step": n, "loss": 9.0 - n, "whole": 3.0, "learning_rate": 0.1} for n in range(1, 8)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def write_boxed_shards(folder: Path, num_samples: int) -> Path:
    """A coloured square on grey in each image, named in a sentence, with its box."""
    names = [name for name in COLORS if name != "grey"]
    with MDSWriter(out=str(folder), columns=COLUMNS) as writer:
        for index in range(num_samples):
            color, left = names[index % 3], 8 * (index % 4)
            # No two images are alike: rounding would decide between them.
            pixels = np.full((48, 32, 3), COLORS["grey"], np.uint8) + np.uint8(4 * index)
            pixels[12:24, left : left + 8] = COLORS[color]
            jpeg = io.BytesIO()
            Image.fromarray(pixels).save(jpeg, "JPEG")
            sentences = [f"There is a {color} square", f"Number {index}", "Nothing else is there"]
            box = [left / 32, 12 / 48, (left + 8) / 32, 24 / 48]
            captions = {"raw": [f"picture {index}"]}
            if index % 5 != 4:
                captions["long"] = sentences
            writer.write(
                {
                    "key": f"{index:04d}",
                    "image": jpeg.getvalue(),
                    "width": 32,
                    "height": 48,
                    "captions": captions,
                    "objects": [{"name": f"{color} square", "box": box}],
                    "sha256": "",
                    "shard": "test.tar",
                }
            )
    return folder
