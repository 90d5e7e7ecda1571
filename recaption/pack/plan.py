"""Between the passes: which samples a bucket takes of each piece, and which images came before.

Both are kept as arrays on disk. Twins are looked for in parts of at most ``MAX_HASHES`` images, by
their hash: some 60 bytes an image while they are sorted, 250 MiB at most, however many there are.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from recaption.common.files import atomic_write
from recaption.engine.base import hash_settings
from recaption.pack.config import PackConfig
from recaption.pack.pieces import VERSION, PieceReport, open_piece

MAX_HASHES = 2**22


@dataclass(frozen=True)
class Plan:
    #: Tells whether a bucket that is there was written by the same plan.
    identity: str
    #: Of the pieces, in the order of the input.
    names: list[str]
    num_buckets: int
    num_twins: int
    #: Samples of each split that will be written.
    num_samples: dict[str, int]


def make_plan(config: PackConfig, work: Path, reports: dict[str, PieceReport]) -> Plan:
    """``reports``: by the pieces' names, in the order of the input."""
    rows = _cut_into_buckets(config, work, reports)
    _save(work / "plan/rows.npy", rows)
    twins, num_samples = _find_twins(config, work, reports)
    _save(work / "plan/twins.npy", twins)
    identity = hash_settings(
        version=VERSION,
        pieces=[(name, r.identity, r.source.sha256) for name, r in reports.items()],
        settings=(config.shard_size, config.bucket_size, config.val_share, config.duplicates),
    )
    return Plan(identity, list(reports), len(rows) - 1, len(twins), num_samples)


def rows_of_bucket(work: Path, bucket: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each piece the first row of a bucket, and the one behind its last."""
    rows = np.load(work / "plan/rows.npy", mmap_mode="r")
    return np.array(rows[bucket]), np.array(rows[bucket + 1])


def load_twins(work: Path) -> np.ndarray:
    """(twins, 2): where a sample is whose image came before, and where that is; sorted."""
    twins: np.ndarray = np.load(work / "plan/twins.npy", mmap_mode="r")
    return twins


def is_twin(twins: np.ndarray, locations: np.ndarray) -> np.ndarray:
    """Which of the ``locations`` are among the twins, as booleans."""
    if not len(twins):
        return np.zeros(len(locations), bool)
    found = np.searchsorted(twins[:, 0], locations).clip(max=len(twins) - 1)
    same: np.ndarray = twins[found, 0] == locations
    return same


def location(piece: int, position: np.ndarray) -> np.ndarray:
    """One number for a place in the input; smaller numbers come first there."""
    return np.uint64(piece << 32) | position.astype(np.uint64)


def is_val(config: PackConfig, sha256: np.ndarray) -> np.ndarray:
    """(N, 32) bytes of hashes -> (N,) booleans. A hash is uniform, so its last bytes decide."""
    return _number(sha256[:, 24:]) < np.uint64(config.val_share * 2**64)


def fixed_bytes(table: pa.Table, name: str) -> np.ndarray:
    """(N, width) of a column of fixed width."""
    width = table.schema.field(name).type.byte_width
    chunks = [
        np.frombuffer(chunk.buffers()[1], np.uint8, len(chunk) * width, chunk.offset * width)
        for chunk in table[name].chunks
    ]
    return np.concatenate([np.empty(0, np.uint8), *chunks]).reshape(-1, width)


def _number(data: np.ndarray) -> np.ndarray:
    """(N, 8) bytes, most significant first -> (N,)."""
    return np.ascontiguousarray(data).view(">u8")[:, 0].astype(np.uint64)


def _cut_into_buckets(
    config: PackConfig, work: Path, reports: dict[str, PieceReport]
) -> np.ndarray:
    """(buckets + 1, pieces): of each piece the first row of each bucket, and its end."""
    sizes = [report.num_bytes for report in reports.values()]
    counts = np.array([report.num_samples for report in reports.values()])
    bucket_bytes = config.bucket_size * 2**20
    if not config.shuffle:  # whole pieces, one after the other
        bucket = (np.cumsum([0, *sizes])[:-1] // bucket_bytes).astype(np.int64)
        bucket = np.unique(bucket, return_inverse=True)[1]
        edges = np.arange(bucket.max() + 2)[:, None]
        return np.where(bucket[None] < edges, counts, 0).astype(np.int32)
    num_buckets = max(-(-sum(sizes) // bucket_bytes), 1)
    inner = np.array([2**64 * b // num_buckets for b in range(1, num_buckets)], np.uint64)
    rows = np.zeros((num_buckets + 1, len(reports)), np.int32)
    for number, name in enumerate(reports):
        order = _number(fixed_bytes(open_piece(work, name), "order")[:, :8])
        rows[1:-1, number] = np.searchsorted(order, inner)
    rows[-1] = counts
    return rows


def _find_twins(
    config: PackConfig, work: Path, reports: dict[str, PieceReport]
) -> tuple[np.ndarray, dict[str, int]]:
    """The twins as ``load_twins`` gives them, and the samples that remain of each split."""
    num_parts = max(-(-sum(report.num_samples for report in reports.values()) // MAX_HASHES), 1)
    twins = [np.empty((0, 2), np.uint64)]
    num_all = num_in_val = 0
    for part in range(num_parts):
        hashes, places, in_val = _hashes_of_part(config, work, list(reports), part, num_parts)
        order = np.lexsort((places, hashes[:, 1], hashes[:, 0]))
        hashes, places, in_val = hashes[order], places[order], in_val[order]
        is_first = np.ones(len(places), bool)
        is_first[1:] = (hashes[1:] != hashes[:-1]).any(axis=1)
        first = np.maximum.accumulate(np.where(is_first, np.arange(len(places)), 0))
        twins.append(np.stack([places[~is_first], places[first[~is_first]]], axis=1))
        written = is_first | (config.duplicates == "keep")
        num_all += int(written.sum())
        num_in_val += int((in_val & written).sum())
    found = np.concatenate(twins)
    counts = dict(zip(config.splits, (num_all - num_in_val, num_in_val), strict=False))
    return found[np.argsort(found[:, 0])], counts


def _hashes_of_part(
    config: PackConfig, work: Path, names: list[str], part: int, num_parts: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N, 2) numbers for the hashes' first 16 bytes, (N,) places, (N,) whether in val."""
    first, last = (2**64 * edge // num_parts for edge in (part, part + 1))
    hashes, places = [np.empty((0, 2), np.uint64)], [np.empty(0, np.uint64)]
    in_val = [np.empty(0, bool)]
    for number, name in enumerate(names):
        table = open_piece(work, name)
        sha256 = fixed_bytes(table, "sha256")
        high = _number(sha256[:, :8])
        here = (high >= np.uint64(first)) & (high <= np.uint64(last - 1))
        hashes.append(np.stack([high[here], _number(sha256[here, 8:16])], axis=1))
        places.append(location(number, table["position"].to_numpy()[here]))
        in_val.append(is_val(config, sha256[here]))
    return np.concatenate(hashes), np.concatenate(places), np.concatenate(in_val)


def _save(path: Path, array: np.ndarray) -> None:
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)
