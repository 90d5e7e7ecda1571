"""``python -m tools.make_scenes output=DIR [num_scenes=1000] [split=train] ... [--json]``"""

import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from recaption.common.config import (
    ConfigError,
    check_at_least,
    load_config,
    print_json,
    run_command,
    write_config,
)
from tools.make_scenes.shards import write_shards
from tools.make_scenes.world import LATTICE


@dataclass
class MakeScenesConfig:
    """Which scenes to draw and where to write them."""

    output: str = MISSING  #: folder for the shards
    num_scenes: int = 1000  #: how many scenes
    split: str = "train"  #: name of the split (letters, digits, - and _); splits share no scene
    start: int = 0  #: index of the first scene, a multiple of shard_size
    seed: int = 0  #: another seed, another set of scenes
    shard_size: int = 1000  #: scenes in a shard (even, so that hard pairs stay together)
    image_size: int = 112  #: side of the images in pixels, a multiple of 16, at least 64
    hard_pair_share: float = 0.25  #: share of scenes whose twin has the same words


def main(arguments: list[str]) -> None:
    config = load_config(MakeScenesConfig, arguments, __doc__)
    check_at_least(1, {"num_scenes": config.num_scenes})
    if config.shard_size < 2 or config.shard_size % 2:
        raise ConfigError(f"shard_size={config.shard_size} must be even and at least 2")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", config.split):
        # It begins the keys, which WebDataset ends at the first dot.
        raise ConfigError(f"split={config.split!r} must be letters, digits, - and _")
    if config.image_size < 64 or config.image_size % LATTICE:
        raise ConfigError(
            f"image_size={config.image_size} must be a multiple of {LATTICE} and at least 64"
        )
    if config.start < 0 or config.start % config.shard_size:
        raise ConfigError(
            f"start={config.start} must be a multiple of shard_size={config.shard_size}"
        )
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    write_config(config, output / f"{config.split}.yaml")
    started = time.monotonic()
    shards = write_shards(
        output,
        config.split,
        config.num_scenes,
        config.start,
        config.seed,
        config.shard_size,
        config.image_size,
        config.hard_pair_share,
    )
    seconds = time.monotonic() - started
    figures = {
        "num_scenes": config.num_scenes,
        "num_shards": len(shards),
        "scenes_per_second": round(config.num_scenes / seconds, 1),
        "output": config.output,
    }
    print_json(arguments, figures)


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
