"""What is already answered of a shard whose table is not written yet.

Each worker appends to a journal of its own, ``SHARD.journal.WORKER.jsonl``, a line a row, so that
a shard that changes hands has several, and none is written by two. A line that was cut off by a
kill is left out: its row is asked again.

A table that is there already, whose failed rows are asked again, goes into the journal before it
is replaced: from then on the journals have every row, whatever is killed.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from recaption.table import CaptionRow


@dataclass
class JournalEntry:
    """A row, and what was noted about its sample when it was read."""

    row: CaptionRow
    notes: list[str] = field(default_factory=list)


@dataclass
class Journaled:
    """What stands in all journals of a shard."""

    entries: dict[tuple[str, str], JournalEntry] = field(default_factory=dict)
    #: Of the table that the entries are for, 0 for the first; see ``ShardStats``.
    num_retries: int = 0
    #: Counted when the shard was captioned first; entries of a retry have none.
    notes: dict[str, int] = field(default_factory=dict)


class Journal:
    """Appends entries to a worker's journal of a shard.

    Args:
        folder: of the journals.
        shard: its name.
        worker: who writes.
        settings: what decides the rows; entries under other settings are not taken over.
        num_retries: of the table that the entries are for.
        notes: of the table that is there already.
    """

    def __init__(
        self,
        folder: Path,
        shard: str,
        worker: str,
        settings: dict[str, Any],
        num_retries: int = 0,
        notes: Mapping[str, int] | None = None,
    ) -> None:
        self._file = (folder / f"{shard}.journal.{worker}.jsonl").open("a")
        head = {"settings": settings, "num_retries": num_retries, "notes": dict(notes or {})}
        self._file.write(json.dumps(head) + "\n")
        self._file.flush()

    def add(self, entries: Sequence[JournalEntry]) -> None:
        """On its way to the disk when this returns: a kill of this process loses none of them."""
        self._file.write("".join(json.dumps(asdict(entry)) + "\n" for entry in entries))
        self._file.flush()

    def sync(self) -> None:
        """On the disk when this returns: a machine that fails loses none of them either."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read_journals(folder: Path, shard: str, settings: dict[str, Any]) -> Journaled:
    """What all workers have answered of a shard under these settings.

    Of journals for several tables, one after the other, those for the last one count.
    """
    newest = Journaled()
    for path in journal_paths(folder, shard):
        journaled = _read_journal(path, settings)
        if journaled is None or journaled.num_retries < newest.num_retries:
            continue
        if journaled.num_retries > newest.num_retries:
            newest = journaled
        else:
            newest.entries = journaled.entries | newest.entries
    return newest


def _read_journal(path: Path, settings: dict[str, Any]) -> Journaled | None:
    """None for a journal under other settings."""
    journaled = None
    with path.open(errors="replace") as file:
        for line in file:
            try:
                tree = json.loads(line)
                if "settings" in tree:
                    if tree["settings"] != settings:
                        return None
                    journaled = Journaled(
                        num_retries=tree.get("num_retries", 0), notes=tree.get("notes", {})
                    )
                elif journaled is not None:
                    row = CaptionRow(**tree["row"])
                    entry = JournalEntry(row, tree["notes"])
                    journaled.entries.setdefault((row.key, row.prompt_id), entry)
            except (ValueError, TypeError, KeyError):
                continue  # cut off by a kill
    return journaled


def journal_paths(folder: Path, shard: str) -> list[Path]:
    return [path for name, path in all_journals(folder) if name == shard]


def all_journals(folder: Path) -> list[tuple[str, Path]]:
    """Shard and file of each journal, sorted."""
    with os.scandir(folder) as found:
        names = sorted(entry.name for entry in found)
    return [
        (name.rpartition(".journal.")[0], folder / name) for name in names if ".journal." in name
    ]


def num_retries_of(path: Path) -> int:
    """Of the table that a journal is for; 0 where its first line was cut off."""
    with path.open(errors="replace") as file:
        try:
            return int(json.loads(file.readline())["num_retries"])
        except (ValueError, TypeError, KeyError):
            return 0


def discard_journals(folder: Path, shard: str) -> None:
    for path in journal_paths(folder, shard):
        path.unlink(missing_ok=True)
