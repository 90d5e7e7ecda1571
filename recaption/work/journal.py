"""What is already answered of a shard whose table is not written yet.

Each worker appends to a journal of its own, ``SHARD.journal.WORKER.jsonl``, a line a row, so that
a shard that changes hands has several, and none is written by two. A line that was cut off by a
kill is left out: its row is asked again.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from recaption.table import CaptionRow


@dataclass
class JournalEntry:
    """A row, and what was noted about its sample when it was read."""

    row: CaptionRow
    notes: list[str] = field(default_factory=list)


class Journal:
    """Appends entries to a worker's journal of a shard.

    Args:
        folder: of the journals.
        shard: its name.
        worker: who writes.
        settings: what decides the rows; entries under other settings are not taken over.
    """

    def __init__(self, folder: Path, shard: str, worker: str, settings: dict[str, Any]) -> None:
        self._file = (folder / f"{shard}.journal.{worker}.jsonl").open("a")
        self._file.write(json.dumps({"settings": settings}) + "\n")
        self._file.flush()

    def add(self, entries: Sequence[JournalEntry]) -> None:
        """On its way to the disk when this returns: a kill of this process loses none of them."""
        self._file.write("".join(json.dumps(asdict(entry)) + "\n" for entry in entries))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_journals(
    folder: Path, shard: str, settings: dict[str, Any]
) -> dict[tuple[str, str], JournalEntry]:
    """What all workers have answered of a shard under these settings, by key and prompt id."""
    entries: dict[tuple[str, str], JournalEntry] = {}
    for path in journal_paths(folder, shard):
        is_ours = False
        with path.open(errors="replace") as file:
            for line in file:
                try:
                    tree = json.loads(line)
                    if "settings" in tree:
                        is_ours = tree["settings"] == settings
                    elif is_ours:
                        row = CaptionRow(**tree["row"])
                        entry = JournalEntry(row, tree["notes"])
                        entries.setdefault((row.key, row.prompt_id), entry)
                except (ValueError, TypeError, KeyError):
                    continue  # cut off by a kill
    return entries


def journal_paths(folder: Path, shard: str) -> list[Path]:
    prefix = f"{shard}.journal."
    with os.scandir(folder) as found:
        names = sorted(entry.name for entry in found if entry.name.startswith(prefix))
    return [folder / name for name in names]


def discard_journals(folder: Path, shard: str) -> None:
    for path in journal_paths(folder, shard):
        path.unlink(missing_ok=True)
