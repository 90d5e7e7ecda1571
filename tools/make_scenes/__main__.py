"""``python -m tools.make_scenes output=DIR [num_scenes=1000] [split=train] ... [--json]``"""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from recaption.common.config import ConfigError, format_help, load_config, run_command
from tools.make_scenes.shards import write_shards
from tools.make_scenes.world import LATTICE


@dataclass
class MakeScenesConfig:
    """Which scenes to draw and where to write them."""

    output: str = MISSING  #: folder for the shards
    num_scenes: int = 1000  #: how many scenes
    split: str = "train"  #: name of the split; splits share no scene
    start: int = 0  #: index of the first scene (even, so that hard pairs stay together)
    seed: int = 0  #: another seed, another set of scenes
    shard_size: int = 1000  #: scenes in a shard
    image_size: int = 112  #: side of the images in pixels, a multiple of 16, at least 64
    hard_pair_share: float = 0.25  #: share of scenes whose twin has the same words


def main(arguments: list[str]) -> None:
    if "--help" in arguments:
        print(f"{__doc__}\n\n{format_help(MakeScenesConfig)}")
        return
    config = load_config(MakeScenesConfig, [text for text in arguments if text != "--json"])
    if config.num_scenes < 1 or config.shard_size < 1:
        raise ConfigError("num_scenes and shard_size must be at least 1")
    if config.image_size < 64 or config.image_size % LATTICE:
        raise ConfigError(
            f"image_size={config.image_size} must be a multiple of {LATTICE} and at least 64"
        )
    if config.start < 0 or config.start % 2:
        raise ConfigError(f"start={config.start} must be even and not negative")
    started = time.monotonic()
    shards = write_shards(
        Path(config.output),
        config.split,
        config.num_scenes,
        config.start,
        config.seed,
        config.shard_size,
        config.image_size,
        config.hard_pair_share,
    )
    if "--json" in arguments:
        seconds = time.monotonic() - started
        print(
            json.dumps(
                {
                    "num_scenes": config.num_scenes,
                    "num_shards": len(shards),
                    "scenes_per_second": round(config.num_scenes / seconds, 1),
                    "output": config.output,
                }
            )
        )


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
