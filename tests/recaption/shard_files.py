"""Pictures as bytes and shards of them, good and bad, for the tests."""

import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Members = list[tuple[str, bytes]]


def picture(seed: int = 0, size: tuple[int, int] = (40, 30)) -> Image.Image:
    """A picture of coarse blocks; another for each seed."""
    blocks = np.random.default_rng(seed).integers(0, 255, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST)


def to_bytes(image: Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def sample(key: str, seed: int, sentences: list[str] | None = None, **metadata: Any) -> Members:
    """A whole sample: picture, alt text and json."""
    if sentences is None:
        sentences = [f"Picture {key} has blocks", "There are twelve of them"]
    return [
        (f"{key}.jpg", to_bytes(picture(seed), quality=95, subsampling=0)),
        (f"{key}.txt", f"alt text of {key}".encode()),
        (f"{key}.json", json.dumps({"sentences": sentences, **metadata}).encode()),
    ]


def write_tar(path: Path, members: Members) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def copy_run(made: Path, folder: Path) -> Path:
    """A copy of the folders `in` and `out` of a run that is done; returns its tables."""
    shutil.copytree(made, folder, dirs_exist_ok=True)
    config = folder / "out/config.yaml"
    config.write_text(config.read_text().replace(str(made), str(folder)))
    return folder / "out"
