"""A tiny ladder for tests: 24 pictures, one-layer towers, runs of a few steps."""

from pathlib import Path

import yaml

from tests.pretrain.trainruns import TINY, write_training_shards
from tests.pretrain.untrained import TINY_CLIP


def write_ladder(folder: Path, **keys: object) -> Path:
    """CLIP in two sizes and two lengths, on 24 samples; `keys` replace those of the ladder."""
    shards = write_training_shards(folder / "shards", 24)
    (folder / "caft.yaml").write_text(TINY)
    (folder / "clip.yaml").write_text(TINY_CLIP)
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
