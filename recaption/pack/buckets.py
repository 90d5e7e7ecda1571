"""The second pass: one bucket's samples from all pieces, in order, into MDS shards of its own."""

import json
import re
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from recaption.common.files import atomic_write, read_json, sync
from recaption.pack import remote
from recaption.pack.config import PackConfig
from recaption.pack.pieces import open_piece
from recaption.pack.plan import (
    Plan,
    fixed_bytes,
    is_twin,
    is_val,
    load_twins,
    location,
    rows_of_bucket,
)
from recaption.pack.pool import add_progress
from recaption.pack.samples import COLUMNS

#: What an English tokenizer makes about one token of: a word, or a mark.
_TOKEN = re.compile(r"\w+|[^\w\s]")


@dataclass
class SourceCounts:
    """Of the captions of one source. Tokens are words and marks, which is near what CLIP counts."""

    num_captions: int = 0
    num_sentences: int = 0
    num_words: int = 0
    num_tokens: int = 0

    def add(self, other: "SourceCounts") -> None:
        for name, count in asdict(other).items():
            setattr(self, name, getattr(self, name) + count)


@dataclass
class SplitCounts:
    """What was written of a split: by one bucket, or by all."""

    num_samples: int = 0
    num_image_bytes: int = 0
    num_pixels: int = 0
    sources: dict[str, SourceCounts] = field(default_factory=dict)

    def add(self, other: "SplitCounts") -> None:
        self.num_samples += other.num_samples
        self.num_image_bytes += other.num_image_bytes
        self.num_pixels += other.num_pixels
        for name, counts in other.sources.items():
            self.sources.setdefault(name, SourceCounts()).add(counts)

    def count(self, sample: dict[str, Any]) -> None:
        counts = {name: count_texts(sentences) for name, sentences in sample["captions"].items()}
        pixels = sample["width"] * sample["height"]
        self.add(SplitCounts(1, len(sample["image"]), pixels, counts))

    @classmethod
    def from_json(cls, tree: dict[str, Any]) -> "SplitCounts":
        sources = {name: SourceCounts(**counts) for name, counts in tree["sources"].items()}
        return cls(**(tree | {"sources": sources}))


def count_texts(sentences: list[str]) -> SourceCounts:
    text = " ".join(sentences)
    return SourceCounts(1, len(sentences), len(text.split()), len(_TOKEN.findall(text)))


def bucket_name(number: int) -> str:
    return f"bucket-{number:05d}"


def read_counts(work: Path, plan: Plan, number: int) -> dict[str, SplitCounts] | None:
    """By split, of a bucket that is finished; else None."""
    path = work / "buckets" / f"{bucket_name(number)}.json"
    if not path.is_file():
        return None
    tree = read_json(path)
    if tree["identity"] != plan.identity:
        return None
    return {split: SplitCounts.from_json(counts) for split, counts in tree["splits"].items()}


def write_bucket(config: PackConfig, work: Path, plan: Plan, number: int) -> int:
    """Writes ``output/[SPLIT/]bucket-NUMBER`` and then its marker; gives the number back."""
    marker = work / "buckets" / f"{bucket_name(number)}.json"
    marker.unlink(missing_ok=True)
    rows = _read_rows(config, work, plan, number)
    counts = {}
    for split in config.splits:
        chosen = [row for row in rows if row["split"] == split]
        counts[split] = _write_split(config, work, split, number, chosen)
    with atomic_write(marker) as temporary:
        splits = {split: asdict(count) for split, count in counts.items()}
        temporary.write_text(json.dumps({"identity": plan.identity, "splits": splits}) + "\n")
    return number


def _read_rows(config: PackConfig, work: Path, plan: Plan, bucket: int) -> list[dict[str, Any]]:
    """Key, image, captions, ... of the bucket's samples in their order, and their split."""
    twins = load_twins(work)
    rows: list[dict[str, Any]] = []
    for piece, (start, end) in enumerate(zip(*rows_of_bucket(work, bucket), strict=True)):
        if start == end:
            continue
        table: pa.Table = open_piece(work, plan.names[piece]).slice(start, end - start)
        is_kept = np.ones(len(table), bool)
        if config.duplicates == "drop":
            is_kept = ~is_twin(twins, location(piece, table["position"].to_numpy()))
        in_val = is_val(config, fixed_bytes(table, "sha256"))
        # Rows become Python's own bytes here, so that no piece stays open.
        for row, kept, val in zip(table.to_pylist(), is_kept, in_val, strict=True):
            if kept:
                row["place"] = row["order"] if config.shuffle else (piece, row["position"])
                row["shard"] = plan.names[piece]
                row["split"] = config.splits[int(val)]
                rows.append(row)
    return sorted(rows, key=lambda row: row["place"])


def _write_split(
    config: PackConfig, work: Path, split: str, number: int, rows: list[dict[str, Any]]
) -> SplitCounts:
    from streaming import MDSWriter

    counts = SplitCounts()
    folder = work / "output" / split / bucket_name(number)
    shutil.rmtree(folder, ignore_errors=True)
    size_limit = config.shard_size * 2**20
    with MDSWriter(
        out=str(folder), columns=COLUMNS, size_limit=size_limit, max_workers=1
    ) as writer:
        for row in rows:
            row["captions"], row["objects"] = (
                json.loads(row["captions"]),
                json.loads(row["objects"]),
            )
            row["sha256"] = row["sha256"].hex()
            sample = {name: row[name] for name in COLUMNS}
            writer.write(sample)
            counts.count(sample)
            add_progress(num_done=1)
    for path in sorted(folder.iterdir()):
        if remote.is_remote(config.output) and path.suffix == ".mds":
            target = path.relative_to(work / "output").as_posix()
            remote.upload(path, f"{config.output}/{target}")
            path.unlink()
        else:
            sync(path)
    sync(folder)
    return counts
