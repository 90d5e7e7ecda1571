"""The three loaders deliver the same, and the benchmark tells how fast."""

import json
import statistics
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch
from PIL import Image

from tools.bench_loader.data import encode_pictures, read_images, write_shards
from tools.bench_loader.pipelines import PIPELINES, LoaderShape


def test_all_loaders_deliver_the_same_batches(tmp_path: Path) -> None:
    pictures = encode_pictures([], side=96, number=1, quality=95)
    tars, mds = write_shards(tmp_path, pictures, ["A long caption. Of several sentences."], 16)
    (tmp_path / "mds2").symlink_to(mds)
    shape = LoaderShape(4, 0, image_size=32, min_crop_area=1.0, context_length=77)
    batches = {}
    for name, source in (("ours", mds), ("open_clip", tars), ("streaming", tmp_path / "mds2")):
        batches[name] = torch.cat(list(islice(PIPELINES[name](source, shape).batches(), 2)))
        assert batches[name].shape == (8, 3, 32, 32)
        assert batches[name].dtype == torch.float32
    for name in ("open_clip", "streaming"):
        assert (batches["ours"] - batches[name]).abs().mean() < 0.05
    assert batches["ours"].std() > 0.2


def test_small_pictures_are_laid_side_by_side(tmp_path: Path) -> None:
    for name, color in (("a", (250, 0, 0)), ("b", (0, 0, 250))):
        Image.new("RGB", (20, 20), color).save(tmp_path / f"{name}.png")
    images = read_images(str(tmp_path), 10)
    assert len(images) == 2
    ((jpeg, width, height),) = encode_pictures(images, side=60, number=1, quality=95)
    (tmp_path / "mosaic.jpg").write_bytes(jpeg)
    mosaic = Image.open(tmp_path / "mosaic.jpg")
    assert mosaic.size == (width, height) == (80, 60)
    reds = {mosaic.getpixel((x, y))[0] > 125 for x in range(10, 80, 20) for y in range(10, 60, 20)}
    assert reds == {True, False}


def test_ratios_for_one_and_two_workers(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tools.bench_loader", "sides=[40]", "image_size=32"]
    command += ["num_pictures=4", "batch_size=4", "num_batches=2", "num_turns=2", "--json"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    figures = json.loads(result.stdout.splitlines()[-1])
    for workers in ("1", "2"):
        turns = figures["turns"][workers]["40"]
        for name in ("open_clip", "streaming"):
            pairs = zip(turns["ours"], turns[name], strict=True)
            ratio = statistics.median(ours / theirs for ours, theirs in pairs)
            assert figures[f"ratio_vs_{name}"][workers]["40"] == pytest.approx(ratio)
        assert all(rate > 0 for rates in turns.values() for rate in rates)
