"""Caption tables: ``SHARD.parquet`` and ``SHARD.stats.json``, commit marker and report at once.

A table has one row for each key and prompt, by the key's place in the tar, then by prompt.

The table is written first and the statistics last, each whole or not at all, so a shard is finished
exactly if its statistics exist. Where there are both already, they are replaced when the new ones
lie beside them on the disk.
"""

import glob
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from recaption.common.config import UserError
from recaption.common.files import atomic_write, sha256_file, sync
from recaption.engine.base import CaptionOrigin

SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("sha256", pa.string()),  # of the image's bytes; null without an image
        pa.field("shard", pa.string(), nullable=False),
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("model_revision", pa.string(), nullable=False),
        pa.field("sampling_hash", pa.string(), nullable=False),
        pa.field("caption", pa.string()),  # null where the status is `failed`
        pa.field("raw_caption", pa.string()),  # as the model wrote it, where a filter changed it
        pa.field("sentences", pa.list_(pa.string()), nullable=False),
        pa.field("num_tokens", pa.int32()),
        pa.field("finish_reason", pa.string()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string()),  # `code: detail`; null where the status is `ok`
    ]
)


_DAMAGED = "{} is damaged: delete it and its stats.json, and caption again"


@dataclass
class CaptionRow:
    """What became of one key and prompt: ``ok``, ``rejected`` (by a filter) or ``failed``."""

    key: str
    sha256: str | None
    prompt_id: str
    status: str
    reason: str | None = None
    caption: str | None = None
    raw_caption: str | None = None
    sentences: list[str] = field(default_factory=list)
    num_tokens: int | None = None
    finish_reason: str | None = None


@dataclass
class SourceFile:
    """A file by size, time and content, to tell later whether it is still the same."""

    name: str
    size: int
    mtime_ns: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "SourceFile":
        stat = path.stat()
        return cls(path.name, stat.st_size, stat.st_mtime_ns, sha256_file(path))

    def matches(self, path: Path) -> bool:
        """A copy with another time still matches by content; only then is the file read."""
        stat = path.stat()
        if path.name != self.name or stat.st_size != self.size:
            return False
        return stat.st_mtime_ns == self.mtime_ns or sha256_file(path) == self.sha256


@dataclass
class ShardStats:
    """The content of ``SHARD.stats.json``."""

    shard: str
    source: SourceFile
    #: Where the captions of each prompt come from.
    origins: list[CaptionOrigin]
    #: The filters' thresholds that gave the verdicts.
    filters: dict[str, Any]
    num_images: int = 0
    num_rows: int = 0
    #: Rows of each status.
    status: dict[str, int] = field(default_factory=dict)
    #: Rows of each reason's code.
    reasons: dict[str, int] = field(default_factory=dict)
    #: Of each oddity that did not cost the row: `text-missing`, `text-not-utf8`, `animated`, ...
    notes: dict[str, int] = field(default_factory=dict)
    #: Members of the tar that were given up: name and reason.
    bad_members: list[dict[str, str]] = field(default_factory=list)
    #: Whether the tar's end could not be read, and why.
    truncated: bool = False
    damage: str | None = None
    num_lost_bytes: int = 0
    num_tokens: int = 0
    #: Workers that had it in hand, one after the other.
    num_attempts: int = 1
    #: Times that failed rows were asked again after the table was written.
    num_retries: int = 0
    #: From the first sample that this worker read to the last answer.
    seconds: float = 0.0
    table_bytes: int = 0
    table_sha256: str = ""


def table_path(folder: Path, shard: str) -> Path:
    return folder / f"{shard}.parquet"


def stats_path(folder: Path, shard: str) -> Path:
    return folder / f"{shard}.stats.json"


def write_table(
    folder: Path,
    rows: Iterable[CaptionRow],
    stats: ShardStats,
    before_commit: Callable[[], None] = lambda: None,
) -> None:
    """Writes the table, then its statistics (completed by the table's size and hash).

    ``before_commit`` is called when all that remains is to give both their names; what it raises
    leaves everything as it was.
    """
    discard_leftovers(folder, stats.shard)
    fixed = {origin.prompt_id: asdict(origin) for origin in stats.origins}
    lines = [{**asdict(row), **fixed[row.prompt_id], "shard": stats.shard} for row in rows]
    table = pa.Table.from_pylist(lines, schema=SCHEMA)
    with (
        atomic_write(stats_path(folder, stats.shard)) as marker,
        atomic_write(table_path(folder, stats.shard)) as path,  # gets its name first
    ):
        pq.write_table(table, path, compression="zstd")
        stats.table_bytes = path.stat().st_size
        stats.table_sha256 = sha256_file(path)
        marker.write_text(json.dumps(asdict(stats), indent=1, ensure_ascii=False) + "\n")
        sync(path)
        sync(marker)
        before_commit()
        stats_path(folder, stats.shard).unlink(missing_ok=True)


def discard_leftovers(folder: Path, shard: str) -> None:
    """Removes what a killed run left of this shard: unfinished files, a table without marker."""
    for path in (table_path(folder, shard), stats_path(folder, shard)):
        for unfinished in folder.glob(f".{glob.escape(path.name)}.*.tmp"):
            unfinished.unlink(missing_ok=True)
    if not stats_path(folder, shard).exists():
        table_path(folder, shard).unlink(missing_ok=True)


def read_stats(folder: Path, shard: str) -> ShardStats | None:
    """The statistics of a finished shard; None where there are none.

    Raises:
        UserError: the file is not what ``write_table`` writes.
    """
    path = stats_path(folder, shard)
    if not path.is_file():
        return None
    try:
        tree = json.loads(path.read_text())
        source = SourceFile(**tree.pop("source"))
        origins = [CaptionOrigin(**origin) for origin in tree.pop("origins")]
        return ShardStats(source=source, origins=origins, **tree)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}): delete it to caption again") from None


def check_table(folder: Path, shard: str) -> ShardStats:
    """The statistics of a shard whose table is there, without reading the table.

    Raises:
        UserError: the shard is not finished, or its table is not the one that was written.
    """
    path = table_path(folder, shard)
    stats = read_stats(folder, shard)
    if stats is None or not path.is_file():
        raise UserError(f"{path} is not finished: run `python -m recaption run` again")
    if path.stat().st_size != stats.table_bytes:
        raise UserError(_DAMAGED.format(path))
    return stats


def read_table(folder: Path, shard: str) -> pa.Table:
    """The table of a finished shard. Raises: UserError: as ``check_table``, or other content."""
    path, stats = table_path(folder, shard), check_table(folder, shard)
    if sha256_file(path) != stats.table_sha256:
        raise UserError(_DAMAGED.format(path))
    return pq.read_table(path, schema=SCHEMA)


def read_rows(folder: Path, shard: str) -> list[CaptionRow]:
    """The rows of a finished shard. Raises: UserError: as ``read_table``."""
    names = [field.name for field in fields(CaptionRow)]
    rows = read_table(folder, shard).select(names).to_pylist()
    return [CaptionRow(**row) for row in rows]


def is_finished(
    folder: Path, source: Path, origins: list[CaptionOrigin], filters: dict[str, Any]
) -> bool:
    """Whether the tar ``source`` already has its table in ``folder``, made the same way.

    Raises:
        UserError: there is one of another tar, prompt, model, sampling or filter.
    """
    stats = read_stats(folder, source.stem)
    if stats is None or not table_path(folder, source.stem).is_file():
        return False
    if not stats.source.matches(source):
        raise UserError(
            f"{source} has changed since {table_path(folder, source.stem)} was made from it: "
            "use another output folder, or delete the table and its stats.json"
        )
    changed = changed_settings((origins, filters), (stats.origins, stats.filters))
    if changed:
        raise UserError(
            f"{table_path(folder, source.stem)} was made with another {' and '.join(changed)}: "
            "use another output folder, or delete its tables"
        )
    return True


_Settings = tuple[list[CaptionOrigin], dict[str, Any]]


def changed_settings(now: _Settings, then: _Settings) -> list[str]:
    """What differs between origins and filters: ``prompt_id``, ``model``, a filter's key, ..."""
    prompts_now = [origin.prompt_id for origin in now[0]]
    if prompts_now != [origin.prompt_id for origin in then[0]]:
        return ["prompt_id"]
    pairs = [(asdict(a), asdict(b)) for a, b in zip(now[0], then[0], strict=True)]
    pairs.append((now[1], then[1]))
    return sorted({name for a, b in pairs for name in a | b if a.get(name) != b.get(name)})
