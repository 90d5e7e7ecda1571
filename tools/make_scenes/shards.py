"""Scenes as WebDataset shards: KEY.jpg, KEY.txt, KEY.json and KEY.masks.png."""

import io
import json
from pathlib import Path
from typing import Any

import webdataset
from PIL import Image

from recaption.common.files import atomic_write
from recaption.common.progress import Progress
from tools.make_scenes.scene import Scene, make_scene


def write_shards(
    output: Path,
    split: str,
    num_scenes: int,
    start: int,
    seed: int,
    shard_size: int,
    image_size: int,
    hard_pair_share: float,
) -> list[Path]:
    """Writes scenes ``start .. start + num_scenes`` of a split; returns the shards' paths.

    Each shard is whole or absent, and named by the place of its first scene in the split.
    """
    paths: list[Path] = []
    with Progress(num_scenes, "scenes", split) as progress:
        for first in range(start, start + num_scenes, shard_size):
            path = output / f"{split}-{first // shard_size:05d}.tar"
            paths.append(path)
            # A fixed time in the headers makes the same scenes the same bytes.
            with (
                atomic_write(path) as temporary,
                webdataset.TarWriter(str(temporary), mtime=0) as writer,
            ):
                for index in range(first, min(first + shard_size, start + num_scenes)):
                    scene = make_scene(seed, split, index, image_size, hard_pair_share)
                    writer.write(to_record(scene, key=f"{split}-{index:07d}"))
                    progress.advance()
    return paths


def to_record(scene: Scene, key: str) -> dict[str, Any]:
    return {
        "__key__": key,
        "jpg": _encode_jpeg(scene.image()),
        "txt": scene.alt_text,
        "json": json.dumps(scene.as_json()).encode(),
        "masks.png": _encode_masks(scene),
    }


def _encode_jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    # No chroma subsampling: things are a few pixels wide and their colour matters.
    image.save(buffer, format="JPEG", quality=92, subsampling=0)
    return buffer.getvalue()


def _encode_masks(scene: Scene) -> bytes:
    masks = Image.fromarray(scene.labels).convert("P")
    masks.putpalette([(i * step) % 256 for i in range(256) for step in (67, 113, 197)])
    buffer = io.BytesIO()
    masks.save(buffer, format="PNG")
    return buffer.getvalue()
