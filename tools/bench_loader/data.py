"""The same JPEGs and captions as web shards and as training shards."""

import io
import json
import tarfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image
from streaming import MDSWriter

from pretrain.data.captions import join_sentences, split_caption
from recaption.common.config import UserError
from recaption.pack import COLUMNS
from recaption.shards import find_shards, open_shard
from tools.make_scenes import make_scene

#: Width by height, as photographs have it.
ASPECTS = ((4, 3), (3, 4), (1, 1), (3, 2))
NUM_TARS = 4
SOURCE = "long"


def read_images(folder: str, number: int) -> list[Image.Image]:
    """Up to ``number`` pictures of a folder of image files or of web shards (``*.tar``)."""
    files = [p for p in sorted(Path(folder).glob("*")) if p.suffix in (".jpg", ".jpeg", ".png")]
    if files:
        return [Image.open(file).convert("RGB") for file in files[:number]]
    images: list[Image.Image] = []
    for path in find_shards(folder):
        with open_shard(path) as shard:
            members = (sample.image for sample in shard.index.samples if sample.image)
            for member in islice(members, number - len(images)):
                images.append(Image.open(io.BytesIO(shard.read(member))).convert("RGB"))
    return images


def read_captions(folder: str, number: int) -> list[str]:
    """Long captions: the ``caption`` of lines in ``*.jsonl``; for no folder, of drawn scenes."""
    if not folder:
        return [make_scene(0, "bench", index, 112).caption for index in range(number)]
    captions = [
        json.loads(line)["caption"]
        for path in sorted(Path(folder).glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    if not captions:
        raise UserError(f"{folder} holds no *.jsonl with a caption a line")
    return captions[:number]


def encode_pictures(
    images: Sequence[Image.Image], side: int, number: int, quality: int
) -> list[tuple[bytes, int, int]]:
    """JPEGs with ``side`` pixels on the short side, as img2dataset stores them, and their sizes.

    Of ``images``, those smaller than that laid side by side, so that they keep their detail; for
    none, of texture whose detail falls with its frequency as in photographs.
    """
    pictures = []
    for index in range(number):
        wide, high = ASPECTS[index % len(ASPECTS)]
        width, height = side * wide // min(wide, high), side * high // min(wide, high)
        rng = Random(f"{side}/{index}")
        picture = _mosaic(images, width, height, rng) if images else _texture(width, height, rng)
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality)
        pictures.append((buffer.getvalue(), width, height))
    return pictures


def write_shards(
    folder: Path,
    pictures: Sequence[tuple[bytes, int, int]],
    captions: Sequence[str],
    num_samples: int,
) -> tuple[Path, Path]:
    """Tars and MDS of the same samples, pictures and captions in turn: (tars, MDS) folders."""
    tars, mds = folder / "tars", folder / "mds"
    tars.mkdir(parents=True)
    with MDSWriter(out=str(mds), columns=COLUMNS, size_limit=64 * 2**20) as writer:
        for number in range(NUM_TARS):
            with tarfile.open(tars / f"{number:05d}.tar", "w") as tar:
                for index in range(number, num_samples, NUM_TARS):
                    jpeg, width, height = pictures[index % len(pictures)]
                    sentences = split_caption(captions[index % len(captions)])
                    key = f"{index:08d}"
                    _add(tar, f"{key}.jpg", jpeg)
                    _add(tar, f"{key}.txt", join_sentences(sentences).encode())
                    writer.write(
                        {
                            "key": key,
                            "image": jpeg,
                            "width": width,
                            "height": height,
                            "captions": {SOURCE: sentences},
                            "objects": [],
                            "sha256": "",
                            "shard": f"{number:05d}.tar",
                        }
                    )
    return tars, mds


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _mosaic(images: Sequence[Image.Image], width: int, height: int, rng: Random) -> Image.Image:
    first = images[rng.randrange(len(images))]
    if min(first.width / width, first.height / height) >= 1:
        scale = max(width / first.width, height / first.height)
        size = (max(width, round(first.width * scale)), max(height, round(first.height * scale)))
        return first.resize(size, Image.Resampling.BICUBIC).crop((0, 0, width, height))
    mosaic = Image.new("RGB", (width, height))
    for top in range(0, height, first.height):
        for left in range(0, width, first.width):
            image = images[rng.randrange(len(images))]
            mosaic.paste(image.resize(first.size), (left, top))
    return mosaic


def _texture(width: int, height: int, rng: Random) -> Image.Image:
    noise = np.random.default_rng(rng.getrandbits(32))
    total = np.zeros((height, width, 3), np.float32)
    for grain in (1, 2, 4, 8, 16, 32, 64, 128):
        size = (max(2, width // grain), max(2, height // grain))
        # Brightness varies more than colour.
        grey = noise.normal(size=size[::-1])
        for channel in range(3):
            layer = (grey + 0.4 * noise.normal(size=size[::-1])).astype(np.float32)
            scaled = Image.fromarray(layer).resize((width, height), Image.Resampling.BICUBIC)
            total[..., channel] += np.asarray(scaled) * grain
    total = 120 + 50 * (total - total.mean()) / total.std()
    return Image.fromarray(total.clip(0, 255).astype(np.uint8))
