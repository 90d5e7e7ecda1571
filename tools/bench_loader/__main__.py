"""Images a second: the trainer's loader against open_clip's and a plain StreamingDataset's.

    python -m tools.bench_loader [images=FOLDER] [captions=FOLDER] [key=value ...] [--json]

All three read the same JPEGs and captions (tars for open_clip, MDS for the others), with the same
number of workers, crop area, output size and one text an image, and deliver normalised float32
batches. They take turns; a ratio is the median over the turns of ours to the other in the same
turn. Workers are started, and their queues emptied, before the clock runs. open_clip then holds
the set in its shuffle buffer, so that its reading of tars is hardly in its time.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from recaption.common.config import UserError, check_at_least, load_config, print_json, run_command
from tools.bench_loader.data import encode_pictures, read_captions, read_images, write_shards
from tools.bench_loader.pipelines import PIPELINES, LoaderShape

#: Batches that our workers, or those of the others, have ready or in work beyond what was taken.
MAX_PREFETCHED = 4


@dataclass
class BenchConfig:
    images: str = ""  # folder of images, or of tars of them; empty: generated texture
    captions: str = ""  # folder of .jsonl files with a `caption` a line; empty: those of scenes
    sides: list[int] = field(default_factory=lambda: [256, 512])  # pixels on the short side
    num_workers: list[int] = field(default_factory=lambda: [1, 2])
    image_size: int = 224  # pixels a side that the model sees
    min_crop_area: float = 0.9  # crops cover between this share of the picture and all
    context_length: int = 77  # tokens a text at most
    quality: int = 95  # of the JPEGs
    num_pictures: int = 64  # different pictures; samples repeat them
    batch_size: int = 32
    num_batches: int = 16  # that are timed in a turn
    num_turns: int = 5

    def __post_init__(self) -> None:
        for name in ("num_pictures", "batch_size", "num_batches", "num_turns", "image_size"):
            check_at_least(1, {name: getattr(self, name)})
        for name in ("sides", "num_workers"):
            check_at_least(1, {name: min(getattr(self, name), default=0)})


def main(argv: list[str]) -> None:
    config = load_config(BenchConfig, argv, __doc__)
    images = read_images(config.images, 4 * config.num_pictures) if config.images else []
    if config.images and not images:
        raise UserError(f"{config.images} holds no image and no tar of images")
    captions = read_captions(config.captions, config.num_pictures)
    figures: dict[str, Any] = {
        "ratio_vs_open_clip": {},
        "ratio_vs_streaming": {},
        "images_per_second": {},
        "turns": {},
    }
    with tempfile.TemporaryDirectory(prefix="bench_loader-") as folder:
        for side in config.sides:
            pictures = encode_pictures(images, side, config.num_pictures, config.quality)
            size = sum(len(jpeg) for jpeg, _, _ in pictures) / len(pictures) / 1024
            print(f"{side} px on the short side, {size:.0f} KiB a JPEG", flush=True)
            at = Path(folder) / str(side)
            tars, mds = write_shards(at, pictures, captions, _num_samples(config))
            for num_workers in config.num_workers:
                rates = _measure(config, tars, mds, num_workers)
                for key, value in _summarise(rates).items():
                    figures[key].setdefault(str(num_workers), {})[str(side)] = value
    print_json(argv, figures)


def _num_samples(config: BenchConfig) -> int:
    """Enough for one pass: between passes workers are started anew, which is not measured."""
    num_batches = max(config.num_workers) * (_num_warm_up_batches(1) + MAX_PREFETCHED)
    return config.batch_size * (num_batches + config.num_batches)


def _num_warm_up_batches(num_workers: int) -> int:
    return (MAX_PREFETCHED + 1) * num_workers


def _measure(
    config: BenchConfig, tars: Path, mds: Path, num_workers: int
) -> dict[str, list[float]]:
    """Images a second of each pipeline in each turn."""
    shape = LoaderShape(
        config.batch_size,
        num_workers,
        config.image_size,
        config.min_crop_area,
        config.context_length,
    )
    pipelines = {}
    for name, pipeline in PIPELINES.items():
        # The streaming library refuses to open a folder twice, and open_clip wants the tars.
        source = tars if name == "open_clip" else _linked(mds, f"{name}-{num_workers}")
        pipelines[name] = pipeline(source, shape)
    rates: dict[str, list[float]] = {name: [] for name in pipelines}
    for turn in range(config.num_turns):
        names = list(pipelines) if turn % 2 == 0 else list(pipelines)[::-1]
        for name in names:
            seconds = _time(pipelines[name].batches(), num_workers, config.num_batches)
            rates[name].append(config.num_batches * config.batch_size / seconds)
    ratios = {name: _ratio(rates, name) for name in rates if name != "ours"}
    print(
        f"  {num_workers} workers: "
        + ", ".join(f"{name} {statistics.median(rates[name]):.0f}" for name in rates)
        + " images/s; "
        + ", ".join(f"{ratio:.2f} times {name}" for name, ratio in ratios.items()),
        flush=True,
    )
    return rates


def _time(batches: Iterator[Tensor], num_workers: int, num_batches: int) -> float:
    """Seconds until ``num_batches`` more have come, the queues being empty at the start."""
    for _ in range(_num_warm_up_batches(num_workers)):
        next(batches)
    started = time.perf_counter()
    for _ in range(num_batches):
        next(batches)
    return time.perf_counter() - started


def _summarise(rates: dict[str, list[float]]) -> dict[str, Any]:
    return {
        "ratio_vs_open_clip": _ratio(rates, "open_clip"),
        "ratio_vs_streaming": _ratio(rates, "streaming"),
        "images_per_second": {name: statistics.median(values) for name, values in rates.items()},
        "turns": rates,
    }


def _ratio(rates: dict[str, list[float]], other: str) -> float:
    pairs = zip(rates["ours"], rates[other], strict=True)
    return statistics.median(ours / theirs for ours, theirs in pairs)


def _linked(folder: Path, name: str) -> Path:
    linked = folder.with_name(f"{folder.name}-{name}")
    linked.mkdir()
    for file in folder.iterdir():
        (linked / file.name).symlink_to(file)
    return linked


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
