"""Small training shards and runs of the real command, for tests."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from streaming import MDSWriter

from recaption.pack import COLUMNS

COLORS = {"red": (220, 30, 30), "green": (30, 180, 30), "blue": (30, 30, 220), "grey": (90, 90, 90)}

TINY = """
model:
  embed_dim: 24
  image:
    size: 32
    hierarchical:
      width: 24
      num_heads: 2
      depths: [1, 1, 1]
      num_clusters: [8, 4]
      stem: {channels: [8, 24], strides: [2, 2]}
      superpixels: {name: grid, cell_size: 8}
  text:
    part: {width: 24, num_layers: 1, num_heads: 2, context_length: 32}
    whole: {num_layers: 1, num_heads: 2}
objective: {name: caft, caft: {loss_form: softmax}}
data: {batch_size: 4}
optim: {num_warmup_steps: 2}
"""


def write_training_shards(folder: Path, num_samples: int, **options: Any) -> Path:
    """Two-coloured squares, described in three sentences; ``options`` are of the writer."""
    names = list(COLORS)
    with MDSWriter(out=str(folder), columns=COLUMNS, **options) as writer:
        for index in range(num_samples):
            left, right = names[index % 4], names[index // 4 % 4]
            pixels = np.empty((32, 32, 3), np.uint8)
            pixels[:, :16], pixels[:, 16:] = COLORS[left], COLORS[right]
            jpeg = io.BytesIO()
            Image.fromarray(pixels).save(jpeg, "JPEG")
            sentences = [f"The left is {left}", f"The right is {right}", f"Picture {index}"]
            writer.write(
                {
                    "key": f"{index:04d}",
                    "image": jpeg.getvalue(),
                    "width": 32,
                    "height": 32,
                    "captions": {"raw": [f"{left} picture"], "long": sentences},
                    "objects": [],
                    "sha256": "",
                    "shard": "test.tar",
                }
            )
    return folder


def start_training(
    config: Path,
    *overrides: str,
    num_ranks: int = 1,
    environment: Mapping[str, str] | None = None,
    module: str = "pretrain",
) -> "subprocess.Popen[str]":
    """Starts ``python -m MODULE train`` in a session of its own, under torchrun if asked."""
    launcher = [sys.executable, "-m"]
    if num_ranks > 1:
        launcher += ["torch.distributed.run", "--standalone"]
        launcher += ["--nproc-per-node", str(num_ranks), "-m"]
    return subprocess.Popen(
        [*launcher, module, "train", str(config), *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **(environment or {})},
    )


def train(
    config: Path,
    *overrides: str,
    num_ranks: int = 1,
    environment: Mapping[str, str] | None = None,
    module: str = "pretrain",
) -> str:
    """Runs a training to its end and returns what it printed."""
    process = start_training(
        config, *overrides, num_ranks=num_ranks, environment=environment, module=module
    )
    try:
        output, _ = process.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == 0, output
    return output
