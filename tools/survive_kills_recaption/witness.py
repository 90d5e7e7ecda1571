"""An onlooker of an output folder: keeps every journal and marker, and kills who writes a table.

Workers delete journals with their claims. A second name of each file, given as soon as it is seen,
keeps what was written to it: which row was answered how often, and which table written how often.
"""

import contextlib
import json
import os
import random
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_INTERVAL = 0.002  # seconds; a small table takes some 20 ms to write
_LONGEST_DELAY = 0.005  # seconds from there to the kill, so that it meets this and that
_LONGEST_WAIT = 1.0  # seconds that a table may take from there to its name
_UNFINISHED_TABLE = re.compile(r"\.(.+)\.parquet\.(\d+)\.tmp")
_MARKER = ".stats.json"


@dataclass
class WriteKills:
    """Workers to be killed while they write a table, spread evenly over the tables."""

    num_left: int
    num_tables: int
    rng: random.Random
    #: What was found of each table that was being written: its names in the output folder.
    found: list[list[str]] = field(default_factory=list)
    #: Workers that were killed too late, their tables finished.
    num_too_late: int = 0

    def is_next(self, num_written: int) -> bool:
        # The later ones are for kills that come too late.
        tables_left = max(0.5 * self.num_tables - num_written, 1)
        return self.num_left > 0 and self.rng.random() < self.num_left / tables_left


class Witness:
    """Use as a context manager.

    Args:
        output: the workers' output folder.
        folder: for the second names; on the same file system.
        kills: of workers that write a table.
    """

    def __init__(self, output: Path, folder: Path, kills: WriteKills) -> None:
        self._output, self._folder, self._kills = output, folder, kills
        self._seen_writes: set[str] = set()
        self._killed: set[int] = set()
        self._journals: set[str] = set()
        self._markers: dict[str, set[int]] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._line_counts: dict[str, tuple[int, int]] = {}
        folder.mkdir(parents=True)
        (output / "work").mkdir(parents=True)

    def __enter__(self) -> "Witness":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closing.set()
        self._thread.join()
        self.look()

    def num_answered(self) -> int:
        """Rows in all journals so far."""
        for name in list(self._journals):
            offset, lines = self._line_counts.get(name, (0, -1))  # the first line is a head
            with (self._folder / name).open("rb") as file:
                file.seek(offset)
                content = file.read()
            self._line_counts[name] = (offset + len(content), lines + content.count(b"\n"))
        return sum(lines for _, lines in self._line_counts.values())

    def workers(self) -> set[int]:
        """The processes that have written journals, most of them ended long ago."""
        return {int(name.rsplit("-", 2)[1]) for name in list(self._journals)}

    def answered_twice(self) -> dict[tuple[str, str, str], int]:
        """Shard, key and prompt of the rows that stand in journals more than once."""
        counts: Counter[tuple[str, str, str]] = Counter()
        for name in self._journals:
            shard = name.rpartition(".journal.")[0]
            for line in (self._folder / name).read_text(errors="replace").splitlines():
                with contextlib.suppress(ValueError, KeyError):  # a head; a line cut off by a kill
                    row = json.loads(line)["row"]
                    counts[shard, row["key"], row["prompt_id"]] += 1
        return {place: count for place, count in counts.items() if count > 1}

    def written_twice(self) -> list[str]:
        """Shards whose table was finished more than once."""
        return sorted(shard for shard, inodes in self._markers.items() if len(inodes) > 1)

    @property
    def num_tables(self) -> int:
        return len(self._markers)

    def _watch(self) -> None:
        while not self._closing.wait(_INTERVAL):
            self.look()

    def look(self) -> None:
        """Done every few milliseconds while it is entered."""
        with os.scandir(self._output / "work") as entries:
            names = [entry.name for entry in entries if ".journal." in entry.name]
        for name in names:
            if name not in self._journals and self._link(self._output / "work" / name, name):
                self._journals.add(name)
        with os.scandir(self._output) as entries:
            names = [entry.name for entry in entries]
        for name in names:
            if name.endswith(_MARKER) and not name.startswith("."):
                self._keep_marker(name)
            elif match := _UNFINISHED_TABLE.fullmatch(name):
                self._saw_write(name, match[1], int(match[2]))

    def _keep_marker(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            inode = (self._output / name).stat().st_ino
            inodes = self._markers.setdefault(name.removesuffix(_MARKER), set())
            # What has a second name keeps its inode's number to itself.
            if inode not in inodes and self._link(self._output / name, f"{name}.{inode}"):
                inodes.add(inode)

    def _saw_write(self, name: str, shard: str, process: int) -> None:
        if name in self._seen_writes:
            return
        self._seen_writes.add(name)
        if process in self._killed:  # it had two tables in hand
            return
        if not self._kills.is_next(self.num_tables):
            return
        time.sleep(self._kills.rng.uniform(0, _LONGEST_DELAY))
        if self._kills.rng.random() < 0.5:  # the table has its name then, and no marker
            deadline = time.monotonic() + _LONGEST_WAIT
            while (self._output / name).exists() and time.monotonic() < deadline:
                pass
        with contextlib.suppress(psutil.NoSuchProcess):
            writer = psutil.Process(process)
            writer.suspend()
            while writer.status() == psutil.STATUS_RUNNING:
                time.sleep(0.0005)
            if (self._output / f"{shard}{_MARKER}").exists():
                writer.resume()  # it was quicker: another table
                return
            writer.kill()
            self._killed.add(process)
            with contextlib.suppress(psutil.NoSuchProcess):
                # Not waited for: its status is for who started it.
                while writer.status() != psutil.STATUS_ZOMBIE:
                    time.sleep(0.001)
            found = {
                path.name
                for path in self._output.iterdir()
                if path.name.startswith((f".{shard}.", f"{shard}."))
            }
            if f"{shard}{_MARKER}" in found:
                self._kills.num_too_late += 1
            else:
                self._kills.num_left -= 1
                self._kills.found.append(sorted(found))

    def _link(self, path: Path, name: str) -> bool:
        try:
            (self._folder / name).hardlink_to(path)
        except FileNotFoundError:  # deleted this moment
            return False
        return True
