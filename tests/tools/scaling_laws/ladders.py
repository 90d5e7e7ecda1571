"""A tiny ladder for tests: 24 pictures, one-layer towers, runs of a few steps."""

from pathlib import Path

import yaml

from tests.pretrain.trainruns import TINY, write_training_shards

CLIP = """
model:
  embed_dim: 24
  image: {name: vit, size: 32, vit: {width: 24, num_heads: 2, depth: 1, patch_size: 8}}
  text: {name: plain, part: {width: 24, num_layers: 1, num_heads: 2, context_length: 32}}
objective: {name: clip}
data: {captions: {name: whole}}
"""


def write_ladder(folder: Path, **keys: object) -> Path:
    """CLIP in two sizes and two lengths, on 24 samples; `keys` replace those of the ladder."""
    shards = write_training_shards(folder / "shards", 24)
    (folder / "caft.yaml").write_text(TINY)
    (folder / "clip.yaml").write_text(CLIP)
    ladder = {
        "output": str(folder / "out"),
        "data": {
            "train": str(shards),
            "val": str(shards),
            "name": "squares",
            "num_val_samples": 8,
            "val_batch_size": 8,
        },
        "methods": {
            "clip": {
                "recipe": [str(folder / "clip.yaml")],
                "sizes": {"s": [], "m": ["model.image.vit.width=32"]},
            }
        },
        "samples": [16, 32],
        "rules": {"batch": 4, "params": 20000, "warmup_share": 0.25, "cooldown_share": 0.5},
        "overrides": ["data.num_workers=0", "train.log_every=1", "train.num_kept_checkpoints=1"],
        "cost": {"flops_per_second": 1e9},
    }
    path = folder / "ladder.yaml"
    path.write_text(yaml.safe_dump(ladder | keys))
    return path
