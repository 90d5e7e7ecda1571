"""Whether a tar and its caption table belong together, key by key."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from recaption.common.config import UserError
from recaption.common.files import sha256_file
from recaption.shards import Shard, open_shard
from recaption.table import SCHEMA, ShardStats, read_stats, stats_path, table_path

STATUSES = ("ok", "rejected", "failed")


@dataclass(frozen=True)
class Problem:
    shard: str
    #: `missing-row`, `double-row`, `not-finished`, ...
    code: str
    detail: str
    key: str | None = None

    def __str__(self) -> str:
        place = self.shard if self.key is None else f"{self.shard} {self.key}"
        return f"{place}: {self.code}: {self.detail}"


@dataclass
class CheckedShard:
    """What was found in one shard; ``stats`` is None where there are none to read."""

    shard: str
    problems: list[Problem]
    stats: ShardStats | None = None
    num_hashed: int = 0


def check_shard(tar: Path, folder: Path, hashes: bool) -> CheckedShard:
    """Compares the tar's index with the table, and the table with its marker.

    Args:
        tar: the input.
        folder: of the tables.
        hashes: whether to read every image again for its sha256.
    """
    checked = CheckedShard(tar.stem, [])

    def report(code: str, detail: str, key: str | None = None) -> None:
        checked.problems.append(Problem(tar.stem, code, detail, key))

    table, marker = table_path(folder, tar.stem), stats_path(folder, tar.stem)
    if not table.is_file() or not marker.is_file():
        there = next((path.name for path in (table, marker) if path.is_file()), "nothing")
        report("not-finished", f"{there} stands alone" if there != "nothing" else "no table yet")
        return checked
    try:
        stats = checked.stats = read_stats(folder, tar.stem)
    except UserError as error:
        report("bad-marker", str(error))
        return checked
    assert stats is not None
    if not stats.source.matches(tar):
        report("changed-tar", "it is not the tar that the table was made from")
    if table.stat().st_size != stats.table_bytes or sha256_file(table) != stats.table_sha256:
        report("damaged-table", "size or sha256 are not those of its marker")
    try:
        schema = pq.read_schema(table)
        if not schema.equals(SCHEMA):
            report("wrong-schema", f"columns: {', '.join(schema.names)}")
            return checked
        rows = pq.read_table(table).to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's own are among these
        report("unreadable-table", str(error).splitlines()[0])
        return checked
    with open_shard(tar) as shard:
        checked.problems += _check_keys(shard, rows, stats)
        checked.problems += _check_rows(shard.name, rows, stats)
        checked.problems += _check_counts(shard, rows, stats)
        if hashes:
            checked.problems += _check_hashes(shard, rows)
            checked.num_hashed = sum(row["sha256"] is not None for row in rows)
    return checked


def _check_keys(shard: Shard, rows: list[dict[str, Any]], stats: ShardStats) -> Iterator[Problem]:
    """Every key of the tar exactly once a prompt, in the order of the tar and of the prompts."""
    prompts = [origin.prompt_id for origin in stats.origins]
    wanted = [(sample.key, prompt) for sample in shard.index.samples for prompt in prompts]
    counts = Counter((row["key"], row["prompt_id"]) for row in rows)
    known = set(wanted)
    for key, prompt in wanted:
        if counts[key, prompt] != 1:
            code = "double-row" if counts[key, prompt] else "missing-row"
            yield Problem(shard.name, code, f"{counts[key, prompt]} rows of {prompt!r}", key)
    for key, prompt in counts:
        if (key, prompt) not in known:
            yield Problem(shard.name, "unknown-row", f"{prompt!r}: not in the tar", key)
    if counts.keys() == known and len(rows) == len(wanted):
        for row, (key, _) in zip(rows, wanted, strict=True):
            if row["key"] != key:
                yield Problem(shard.name, "wrong-order", "not at its place in the tar", row["key"])
                break


def _check_rows(shard: str, rows: list[dict[str, Any]], stats: ShardStats) -> Iterator[Problem]:
    """What each row says must fit together, and be of the marker's origins."""
    origins = {origin.prompt_id: asdict(origin) for origin in stats.origins}
    for row in rows:
        wrong = []
        if row["status"] not in STATUSES:
            wrong.append(f"status {row['status']!r}")
        if (row["reason"] is None) != (row["status"] == "ok"):
            wrong.append(f"{row['status']} with reason {row['reason']!r}")
        if (row["caption"] is None) != (row["status"] == "failed"):
            wrong.append(f"{row['status']} {'without' if row['caption'] is None else 'with'} text")
        if row["shard"] != shard:
            wrong.append(f"shard {row['shard']!r}")
        origin = origins.get(row["prompt_id"], {})
        wrong += [f"{name} {row[name]!r}" for name in origin if row[name] != origin[name]]
        if wrong:
            yield Problem(shard, "bad-row", ", ".join(wrong), row["key"])


def _check_counts(shard: Shard, rows: list[dict[str, Any]], stats: ShardStats) -> Iterator[Problem]:
    reasons = Counter(row["reason"].split(":")[0] for row in rows if row["reason"])
    pairs = {
        "shard": (stats.shard, shard.name),
        "num_images": (stats.num_images, len(shard.index.samples)),
        "num_rows": (stats.num_rows, len(rows)),
        "status": (stats.status, dict(Counter(row["status"] for row in rows))),
        "reasons": (stats.reasons, dict(reasons)),
        "num_tokens": (stats.num_tokens, sum(row["num_tokens"] or 0 for row in rows)),
        "bad_members": (stats.bad_members, [asdict(bad) for bad in shard.index.bad_members]),
        "truncated": (stats.truncated, shard.index.damage is not None),
    }
    for name, (said, found) in pairs.items():
        if said != found:
            yield Problem(shard.name, "wrong-count", f"{name}: the marker says {said}, not {found}")


def _check_hashes(shard: Shard, rows: list[dict[str, Any]]) -> Iterator[Problem]:
    """The images as they are in the tar; those that were too large to read have no hash."""
    images = {sample.key: sample.image for sample in shard.index.samples}
    hashes: dict[str, str] = {}
    for row in rows:
        key, image = row["key"], images.get(row["key"])
        if row["sha256"] is None:
            if row["status"] != "failed":
                yield Problem(shard.name, "no-hash", f"of a row that is {row['status']}", key)
            continue
        if image is None:
            yield Problem(shard.name, "wrong-hash", "the tar has no such image", key)
            continue
        if key not in hashes:
            hashes = {key: hashlib.sha256(shard.read(image)).hexdigest()}  # of this key's prompts
        if hashes[key] != row["sha256"]:
            yield Problem(shard.name, "wrong-hash", "sha256 is not that of the image", key)
