"""The first pass: every tar becomes one piece, an Arrow file of its samples, sorted for the second.

The place of a sample in the shuffled set is a hash of its shard and key, which is known before
its image is read. So samples are decoded in that order, and what one bucket wants of a tar lies
in one run of its piece. A piece is closed by ``NAME.json``: without it, it is made again.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from recaption.common.files import atomic_write, read_json
from recaption.engine.base import hash_settings
from recaption.pack.config import PackConfig
from recaption.pack.inputs import Tar, local_copy
from recaption.pack.pool import add_progress
from recaption.pack.samples import pack_sample
from recaption.pack.tables import TableFolder
from recaption.shards import Shard, open_shard
from recaption.table import SourceFile

#: Of the intermediate files; another number makes them anew.
VERSION = 1
#: Samples and bytes of images in one record batch.
BATCH_SAMPLES, BATCH_BYTES = 128, 2**23

SCHEMA = pa.schema(
    [
        pa.field("order", pa.binary(16)),
        pa.field("position", pa.int32()),  # in the tar, from 0
        pa.field("sha256", pa.binary(32)),
        pa.field("num_bytes", pa.int32()),  # of the image
        pa.field("key", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("captions", pa.string()),
        pa.field("objects", pa.string()),
        pa.field("image", pa.binary()),
    ]
)


@dataclass
class PieceReport:
    """What became of a tar: the content of ``NAME.json``."""

    #: Of everything that decides the piece, except the tar's content.
    identity: str
    source: SourceFile
    num_samples: int = 0
    #: Of the images in the piece.
    num_bytes: int = 0
    notes: Counter[str] = field(default_factory=Counter)
    #: Position in the tar (-1 for what has none), key or name, reason; in the tar's order.
    quarantine: list[tuple[int, str, str]] = field(default_factory=list)
    is_damaged: bool = False


def piece_path(work: Path, name: str) -> Path:
    return work / "pieces" / f"{name}.arrow"


def report_path(work: Path, name: str) -> Path:
    return work / "pieces" / f"{name}.json"


def piece_identity(config: PackConfig, folders: list[TableFolder], hashes: list[str]) -> str:
    """``hashes``: of the tar's tables, one of each folder."""
    return hash_settings(
        version=VERSION,
        tables=[(folder.prefix, sha256) for folder, sha256 in zip(folders, hashes, strict=True)],
        require=config.require,
        images=asdict(config.images),
        encoding=(config.image_format, config.quality),
        order=config.seed if config.shuffle else None,
    )


def read_report(work: Path, name: str) -> PieceReport:
    tree = read_json(report_path(work, name))
    tree["source"], tree["notes"] = SourceFile(**tree["source"]), Counter(tree["notes"])
    tree["quarantine"] = [tuple(line) for line in tree["quarantine"]]
    return PieceReport(**tree)


def is_done(work: Path, tar: Tar, identity: str) -> bool:
    """Whether an earlier pack has finished this tar's piece, from the same tar and settings."""
    if not report_path(work, tar.name).is_file() or not piece_path(work, tar.name).is_file():
        return False
    report = read_report(work, tar.name)
    return report.identity == identity and tar.is_same(report.source)


def open_piece(work: Path, name: str) -> pa.Table:
    """The piece, mapped into memory: what is not looked at is not read."""
    return pa.ipc.open_file(pa.memory_map(str(piece_path(work, name)))).read_all()


def write_piece(
    config: PackConfig, folders: list[TableFolder], work: Path, task: tuple[Tar, str]
) -> list[str]:
    """``task``: the tar and the identity of its piece. Returns: warnings to show."""
    tar, identity = task
    scratch = work / "scratch"
    with local_copy(tar, scratch) as (path, source), open_shard(path) as shard:
        report = PieceReport(identity, source)
        index = shard.index
        add_progress(num_found=len(index.samples), num_bytes_found=tar.size)
        report.notes.update(shard.count_ignored())
        warnings = _warn_of_other_tar(tar, shard, folders)
        report.notes.update({"table-of-another-tar": len(warnings)} if warnings else {})
        report.quarantine += [
            (-1, bad.name, f"bad-member: {bad.reason}") for bad in index.bad_members
        ]
        if index.damage is not None:
            report.is_damaged = True
            report.quarantine.append((-1, "", f"damaged-tar: {index.damage}"))
        report_path(work, tar.name).unlink(missing_ok=True)
        with atomic_write(piece_path(work, tar.name)) as temporary:
            _write_samples(temporary, _pack_samples(shard, folders, config, report))
    report.quarantine.sort(key=lambda line: line[0])
    with atomic_write(report_path(work, tar.name)) as temporary:
        temporary.write_text(json.dumps(vars(report) | {"source": asdict(report.source)}) + "\n")
    return warnings


def _pack_samples(
    shard: Shard, folders: list[TableFolder], config: PackConfig, report: PieceReport
) -> Iterator[dict[str, Any]]:
    tables = [folder.read(shard.name) for folder in folders]
    order_of = partial(_order_of, config, shard.name)
    places = sorted(
        (order_of(position, sample.key), position)
        for position, sample in enumerate(shard.index.samples)
    )
    for order, position in places:
        packed = pack_sample(shard, tables, config, shard.index.samples[position])
        report.notes.update(packed.notes)
        add_progress(num_done=1)
        if packed.sample is None:
            report.quarantine.append((position, packed.key, packed.reason or ""))
            continue
        sample = packed.sample
        report.num_samples += 1
        report.num_bytes += len(sample["image"])
        yield {
            "order": order,
            "position": position,
            "sha256": bytes.fromhex(sample["sha256"]),
            "num_bytes": len(sample["image"]),
            "captions": json.dumps(sample["captions"]),
            "objects": json.dumps(sample["objects"]),
            **{name: sample[name] for name in ("key", "width", "height", "image")},
        }


def _order_of(config: PackConfig, shard: str, position: int, key: str) -> bytes:
    """16 bytes by which the samples are sorted."""
    if not config.shuffle:
        return position.to_bytes(16, "big")
    name = f"{config.seed}\0{shard}\0{key}".encode()
    return hashlib.blake2b(name, digest_size=16).digest()


def _write_samples(path: Path, samples: Iterator[dict[str, Any]]) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
        batch: list[dict[str, Any]] = []
        num_bytes = 0
        for sample in samples:
            batch.append(sample)
            num_bytes += sample["num_bytes"]
            if len(batch) >= BATCH_SAMPLES or num_bytes >= BATCH_BYTES:
                writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=SCHEMA))
                batch, num_bytes = [], 0
        if batch:
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=SCHEMA))


def _warn_of_other_tar(tar: Tar, shard: Shard, folders: list[TableFolder]) -> list[str]:
    """Tars of different sets are often called alike; then hardly a key is in the table."""
    return [
        f"{folder.path}/{shard.name}.parquet was made from another tar than {tar.path}"
        for folder in folders
        if not folder.read_stats(shard.name).source.matches(shard.path)
    ]
