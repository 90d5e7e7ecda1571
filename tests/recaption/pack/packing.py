"""Captioning, packing and reading back, for the tests."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from recaption.common.config import load_config
from recaption.config import RunConfig
from recaption.pack import PackConfig, PackSummary, pack
from recaption.runner import run
from tests.recaption.shard_files import Members, to_bytes, write_tar


def caption(shards: Path, tables: Path, *arguments: str) -> None:
    existing = ["engine.name=existing", f"input={shards}", f"output={tables}"]
    run(load_config(RunConfig, [*existing, *arguments]))


def pack_shards(folder: Path, *arguments: str, tables: str | None = None) -> PackSummary:
    tables = str(folder / "tables") if tables is None else tables
    paths = [f"shards={folder}/in", f"tables={tables}", f"output={folder}/packed"]
    return pack(load_config(PackConfig, [*paths, "num_processes=1", *arguments]))


def read_samples(folder: Path) -> dict[str, dict[str, Any]]:
    from streaming import StreamingDataset

    dataset = StreamingDataset(local=str(folder), batch_size=1, shuffle=False)
    return {item["key"]: item for item in (dataset[index] for index in range(len(dataset)))}


def quarantine(folder: Path) -> dict[str, str]:
    lines = (folder / "quarantine.jsonl").read_text().splitlines()
    return {row["key"]: row["reason"].split(":")[0] for row in map(json.loads, lines)}


def prepare(folder: Path, members: Members) -> None:
    write_tar(folder / "in/a.tar", members)
    caption(folder / "in", folder / "tables")


def noise(seed: int) -> bytes:
    """A picture of 200 KB, which nothing makes smaller."""
    pixels = np.random.default_rng(seed).integers(0, 255, (256, 256, 3), dtype=np.uint8)
    return to_bytes(Image.fromarray(pixels), "PNG")
