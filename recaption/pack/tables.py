"""The folders of caption tables that are joined, local or remote, and what names their captions."""

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from recaption.common.config import UserError
from recaption.engine.base import CaptionOrigin
from recaption.pack import remote
from recaption.pack.config import table_entries
from recaption.table import ShardStats, check_table, read_stats, read_table, stats_path, table_path

RAW = "raw"
#: Small files that are fetched at once.
NUM_FETCHES = 16


@dataclass(frozen=True)
class TableCaptions:
    """The captions of one key: of the image with this hash, sentences of each source."""

    sha256: str | None
    sentences: dict[str, list[str]]


@dataclass(frozen=True)
class TableFolder:
    """A folder of tables. ``local`` is itself, or where a remote one's files are fetched to."""

    path: str
    prefix: str | None
    local: Path

    def source(self, prompt_id: str) -> str:
        """What the captions of a prompt are called in the training shards."""
        return f"{self.prefix}-{prompt_id}" if self.prefix else prompt_id

    def read_stats(self, shard: str) -> ShardStats:
        """Of a shard that ``check_tables`` has seen."""
        stats = read_stats(self.local, shard)
        if stats is None:
            raise UserError(f"{self.path}/{shard}.stats.json is gone: run the same again")
        return stats

    def read(self, shard: str) -> dict[str, TableCaptions]:
        """Of each key in a shard's table: the image's hash, and the sentences of its ok rows."""
        path = table_path(self.local, shard)
        if remote.is_remote(self.path):
            remote.download(f"{self.path}/{path.name}", path)
        columns = ["key", "sha256", "prompt_id", "sentences", "status"]
        captions: dict[str, TableCaptions] = {}
        for row in read_table(self.local, shard).select(columns).to_pylist():
            entry = captions.setdefault(row["key"], TableCaptions(row["sha256"], {}))
            if row["status"] == "ok":
                entry.sentences[self.source(row["prompt_id"])] = row["sentences"]
        if remote.is_remote(self.path):
            path.unlink()
        return captions


@dataclass(frozen=True)
class TableSource:
    """Captions of one source: the folder they lie in and where they come from."""

    name: str
    folder: str
    origin: CaptionOrigin


def find_tables(tables: str | None, work: Path) -> list[TableFolder]:
    folders = []
    for number, (path, prefix) in enumerate(table_entries(tables)):
        local = work / f"tables/{number}" if remote.is_remote(path) else Path(path)
        folders.append(TableFolder(path.rstrip("/") or "/", prefix, local))
    return folders


def check_tables(
    folders: list[TableFolder], shards: list[str]
) -> tuple[dict[str, list[str]], list[TableSource]]:
    """Whether each folder has a finished table of each shard, and no two the same source.

    Returns:
        the tables' hashes by shard, in the order of the folders, and the sources.

    Raises:
        UserError: names the table or the source.
    """
    hashes: dict[str, list[str]] = {shard: [] for shard in shards}
    sources: dict[TableSource, None] = {}
    by_name: dict[str, list[str]] = defaultdict(list)
    for folder in folders:
        names: dict[str, None] = {}
        for shard, stats in zip(shards, _read_all_stats(folder, shards), strict=True):
            hashes[shard].append(stats.table_sha256)
            for origin in stats.origins:
                names[folder.source(origin.prompt_id)] = None
                source = TableSource(folder.source(origin.prompt_id), folder.path, origin)
                sources[source] = None
        for name in names:
            by_name[name].append(folder.path)
    for name, users in by_name.items():
        if name == RAW or len(users) > 1:
            where = " and ".join(users)
            taken = "of the alt text" if name == RAW else "of one source"
            raise UserError(
                f"prompt_id {name!r} in {where}: a name {taken} only; call one otherwise, by "
                f"tables=...,{users[-1]}=NAME"
            )
    return hashes, list(sources)


def _read_all_stats(folder: TableFolder, shards: list[str]) -> list[ShardStats]:
    if not remote.is_remote(folder.path):
        return [check_table(folder.local, shard) for shard in shards]
    sizes = {Path(file.uri).name: file.size for file in remote.list_files(folder.path)}

    def fetch(shard: str) -> ShardStats:
        path, table = stats_path(folder.local, shard), table_path(folder.local, shard)
        where = f"{folder.path}/{table.name}"
        if path.name not in sizes or table.name not in sizes:
            raise UserError(f"{where} is not finished: run `python -m recaption run` again")
        remote.download(f"{folder.path}/{path.name}", path)
        stats = read_stats(folder.local, shard)
        assert stats is not None
        if stats.table_bytes != sizes[table.name]:
            raise UserError(f"{where} is damaged: caption again, or copy it again")
        return stats

    with ThreadPoolExecutor(NUM_FETCHES) as pool:
        return list(pool.map(fetch, shards))
