"""A shard in hand: what is answered of it, and its table when all is."""

import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recaption.common.threads import in_thread
from recaption.config import RunConfig
from recaption.engine import CaptionOrigin
from recaption.judging import mark_near_duplicates
from recaption.shards import Sample, Shard
from recaption.table import (
    CaptionRow,
    ShardStats,
    SourceFile,
    read_rows,
    read_stats,
    write_table,
)
from recaption.work.claims import Claim, Claims
from recaption.work.journal import (
    Journal,
    JournalEntry,
    discard_journals,
    journal_paths,
    read_journals,
)


class LostClaim(Exception):
    """Another worker has taken the shard over, as this one gave no sign of life for long."""


class OpenShard:
    """Collects the rows of a shard, keeping each in the worker's journal as it comes.

    Args:
        path: the tar.
        claim: this worker's.
        claims: where it stands.
        config: of the run.
        origins: where captions come from, one a prompt.
        retried: codes of failures to ask again in a shard that is finished; None for a shard that
            is not.
    """

    def __init__(
        self,
        path: Path,
        claim: Claim,
        claims: Claims,
        config: RunConfig,
        origins: list[CaptionOrigin],
        retried: list[str] | None = None,
    ) -> None:
        self.shard = Shard(path)
        self.claim = claim
        self._claims, self._config, self._origins = claims, config, origins
        self._work = Path(config.output) / "work"
        self._started = time.monotonic()
        settings: dict[str, Any] = {
            "size": path.stat().st_size,
            "mtime_ns": path.stat().st_mtime_ns,
            "origins": [asdict(origin) for origin in origins],
            "filters": asdict(config.filters),
        }
        self._num_attempts = len(journal_paths(self._work, path.stem)) + 1
        journaled = read_journals(self._work, path.stem, settings)
        self._num_retries, self._notes = journaled.num_retries, journaled.notes
        self._entries = journaled.entries
        self._kept: list[JournalEntry] = []
        self._before = read_stats(Path(config.output), path.stem) if retried is not None else None
        if self._before is not None:
            self._keep_rows(self._before, retried or [])
        self._captions = self._read_captions()
        self._journal = Journal(
            self._work, path.stem, claims.worker, settings, self._num_retries, self._notes
        )

    def unanswered(self, sample: Sample) -> list[str]:
        """The prompts that have no row for this sample yet."""
        return [name for name in self._config.asked if (sample.key, name) not in self._entries]

    def caption_of(self, key: str) -> str | None:
        """The caption that a prompt of captions builds on."""
        return self._captions.get(key)

    def add(self, rows: list[CaptionRow], notes: list[str]) -> None:
        """``notes`` are those of the sample, given with one of its rows."""
        entries = [JournalEntry(row) for row in rows]
        entries[0].notes = notes
        self._journal.add(entries)
        for entry in entries:
            self._entries[entry.row.key, entry.row.prompt_id] = entry

    @property
    def is_complete(self) -> bool:
        return len(self._entries) == len(self.shard.index.samples) * len(self._config.asked)

    async def finish(self) -> None:
        """Writes the table, if there is anything new, and gives the claim back.

        Raises:
            LostClaim: another worker has the shard now, or had it and finished it; nothing was
                written.
        """
        await in_thread(self._finish)

    def close(self) -> None:
        self._journal.close()
        self.shard.close()

    def _finish(self) -> None:
        try:
            if self._before is None or len(self._kept) < len(self._entries):
                self._write_table()
            else:
                discard_journals(self._work, self.shard.name)
        finally:
            self._claims.release(self.claim)

    def _write_table(self) -> None:
        index = self.shard.index
        entries = [
            self._entries[sample.key, name]
            for sample in index.samples
            for name in self._config.asked
        ]
        rows = [entry.row for entry in entries]
        kept = {id(entry.row) for entry in self._kept}
        mark_near_duplicates(rows, self._config.filters, [id(row) not in kept for row in rows])
        notes = Counter(self._notes) if self._num_retries else self.shard.count_ignored()
        if not self._num_retries:
            for entry in entries:
                notes.update(entry.notes)
        self._journal.add(self._kept)
        self._journal.sync()
        stats = ShardStats(
            shard=self.shard.name,
            source=SourceFile.of(self.shard.path),
            origins=self._origins,
            filters=asdict(self._config.filters),
            num_images=len(index.samples),
            num_rows=len(rows),
            status=dict(Counter(row.status for row in rows)),
            reasons=dict(Counter(row.reason.split(":")[0] for row in rows if row.reason)),
            notes=dict(notes),
            bad_members=[asdict(member) for member in index.bad_members],
            truncated=index.damage is not None,
            damage=index.damage,
            num_lost_bytes=index.num_lost_bytes,
            num_tokens=sum(row.num_tokens or 0 for row in rows),
            num_attempts=self._num_attempts,
            num_retries=self._num_retries,
            seconds=round(time.monotonic() - self._started, 3),
        )
        self._check_claim()
        try:
            write_table(Path(self._config.output), rows, stats, before_commit=self._check_claim)
        except FileNotFoundError:  # who took over has removed what this worker was writing
            self._check_claim()
            raise
        discard_journals(self._work, self.shard.name)

    def _check_claim(self) -> None:
        """What was asleep for long may have been done by another, and given back since."""
        if not self._claims.is_mine(self.claim):
            raise LostClaim
        now = read_stats(Path(self._config.output), self.shard.name)
        if self._before is not None and now != self._before:
            raise LostClaim

    def _keep_rows(self, before: ShardStats, retried: list[str]) -> None:
        """Of the table that is there, all rows but those that are to be asked again."""
        if self._num_retries != before.num_retries + 1:  # journals of that table or an older one
            self._entries = {}
        self._num_retries, self._notes = before.num_retries + 1, before.notes
        for row in read_rows(Path(self._config.output), self.shard.name):
            code, place = (row.reason or "").split(":")[0], (row.key, row.prompt_id)
            if row.status != "failed" or (retried and code not in retried):
                self._entries[place] = JournalEntry(row)
                self._kept.append(self._entries[place])
            elif place in self._entries and self._entries[place].row == row:
                del self._entries[place]  # kept by a killed retry that asked for other reasons

    def _read_captions(self) -> dict[str, str]:
        if not self._config.captions:
            return {}
        rows = read_rows(Path(self._config.captions), self.shard.name)
        return {
            row.key: row.caption
            for row in rows
            if row.status == "ok" and row.caption and row.prompt_id == self._config.captions_prompt
        }
