"""``python -m recaption status``: how far the workers of an output folder are.

It asks no worker and reads no table: one marker a finished shard, the claims and journals of those
in hand, and the sizes of the tars. Journals are weighed rather than read.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from recaption.common.progress import format_seconds
from recaption.output_folder import OutputConfig, OutputFolder, open_output
from recaption.shards import index_shard
from recaption.table import ShardStats, read_stats, table_path
from recaption.work.claims import ClaimConfig, Holder, read_holders
from recaption.work.journal import all_journals

#: Of a journal, what is read to tell the length of its lines.
_SAMPLE_BYTES = 2**18
#: Shards in hand and of failed rows that are printed; `--json` has all.
_NUM_PRINTED = 20


@dataclass
class StatusConfig(OutputConfig):
    #: The rate is that of the last seconds so many.
    window: float = 3600.0


@dataclass
class InHand:
    """A shard that a worker has claimed, as seen from outside."""

    shard: str
    worker: str
    is_alive: bool
    #: Since the worker took it, and since its last sign of life.
    seconds: float
    quiet_seconds: float
    #: Rows in the journals of all that had it; an estimate where these are large.
    num_rows: int


@dataclass
class Status:
    num_shards: int = 0
    num_done: int = 0
    num_not_begun: int = 0
    #: Begun by workers that gave it back or were killed, and in nobody's hand now.
    waiting: list[str] = field(default_factory=list)
    in_hand: list[InHand] = field(default_factory=list)
    num_workers: int = 0
    num_images_done: int = 0
    #: Estimated by the sizes of the tars that are not done.
    num_images: int = 0
    num_tokens: int = 0
    #: Rows of finished shards.
    status: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    #: Failed rows of each shard that has some.
    with_failed_rows: dict[str, int] = field(default_factory=dict)
    damaged_shards: list[str] = field(default_factory=list)
    num_bad_members: int = 0
    #: Of all workers, in the window that ends with their last sign.
    images_per_second: float = 0.0
    #: None where nobody works, or nothing is left.
    seconds_left: float | None = None

    def __str__(self) -> str:
        share = self.num_images_done / max(self.num_images, 1)
        lines = [
            f"shards  {self.num_done:,} of {self.num_shards:,} done, {len(self.in_hand):,} in hand "
            f"by {self.num_workers:,} living workers, {len(self.waiting):,} begun and given back, "
            f"{self.num_not_begun:,} not begun",
            f"images  {self.num_images_done:,} of about {self.num_images:,} ({share:.1%}), "
            f"{self.images_per_second:.1f} images/s"
            + (f", {format_seconds(self.seconds_left)} left" if self.seconds_left else ""),
            f"tokens  {self.num_tokens:,}",
            f"rows    {_counts(self.status)}",
        ]
        lines += [f"reasons {_counts(self.reasons)}"] * bool(self.reasons)
        lines += [f"notes   {_counts(self.notes)}"] * bool(self.notes)
        if self.damaged_shards or self.num_bad_members:
            lines.append(
                f"tars    {len(self.damaged_shards):,} cut off or damaged, "
                f"{self.num_bad_members:,} bad members"
            )
        lines += [
            f"  {held.shard}: {held.worker} for {format_seconds(held.seconds)}, {held.num_rows:,} "
            f"rows, {'alive' if held.is_alive else 'stale'}, last sign "
            f"{format_seconds(held.quiet_seconds)} ago"
            for held in self.in_hand[:_NUM_PRINTED]
        ]
        lines += [f"  ... {len(self.in_hand) - _NUM_PRINTED:,} more"] * (
            len(self.in_hand) > _NUM_PRINTED
        )
        if self.with_failed_rows:
            worst = sorted(self.with_failed_rows.items(), key=lambda item: (-item[1], item[0]))
            shown = ", ".join(f"{shard} {count:,}" for shard, count in worst[:_NUM_PRINTED])
            lines.append(f"failed rows in {len(worst):,} shards (`retry` asks them again): {shown}")
        return "\n".join(lines)


@dataclass
class _Work:
    """Images that were captioned over some time, by the clock of the file system."""

    num_images: float
    begin: float
    end: float


def status(config: StatusConfig) -> Status:
    folder = open_output(config)
    found = Status(num_shards=len(folder.tars))
    sizes = {path.stem: path.stat().st_size for path in folder.tars}
    stats = {shard: one for shard in sizes if (one := _read_finished(folder, shard)) is not None}
    for one in stats.values():
        _add_finished(found, one)
    rows = _count_journaled(folder.work) if folder.work.is_dir() else {}
    claims = folder.config.claims if folder.config is not None else ClaimConfig()
    holders = read_holders(folder.work, claims.stale_after) if folder.work.is_dir() else []
    holders = [holder for holder in holders if holder.shard in sizes]
    found.in_hand = [_in_hand(holder, rows.get(holder.shard, {})) for holder in holders]
    found.num_workers = len({holder.worker for holder in holders if holder.is_alive})
    begun = set(rows) | {holder.shard for holder in holders}
    found.num_not_begun = len(sizes.keys() - stats.keys() - begun)
    held = {holder.shard for holder in holders}
    found.waiting = sorted(shard for shard in rows if shard in sizes.keys() - stats.keys() - held)

    num_prompts = _num_prompts(folder, stats)
    for shard in sizes.keys() - stats.keys():
        found.num_images_done += round(sum(rows.get(shard, {}).values()) / num_prompts)
    found.num_images = max(found.num_images_done, _estimate_num_images(folder, sizes, stats))
    work = [*_finished_work(folder, stats), *_work_in_hand(holders, rows, stats, num_prompts)]
    found.images_per_second = round(_rate(work, config.window), 2)
    if found.num_workers and found.images_per_second:
        left = max(found.num_images - found.num_images_done, 0)
        found.seconds_left = round(left / found.images_per_second, 1)
    return found


def _read_finished(folder: OutputFolder, shard: str) -> ShardStats | None:
    stats = read_stats(folder.path, shard)
    return stats if stats is not None and table_path(folder.path, shard).is_file() else None


def _add_finished(found: Status, stats: ShardStats) -> None:
    found.num_done += 1
    found.num_images_done += stats.num_images
    found.num_tokens += stats.num_tokens
    found.status.update(stats.status)
    found.reasons.update(stats.reasons)
    found.notes.update(stats.notes)
    found.num_bad_members += len(stats.bad_members)
    if stats.truncated:
        found.damaged_shards.append(stats.shard)
    if stats.status.get("failed"):
        found.with_failed_rows[stats.shard] = stats.status["failed"]


def _count_journaled(work: Path) -> dict[str, dict[str, int]]:
    """Rows in the journal of each shard and worker."""
    counts: dict[str, dict[str, int]] = {}
    for shard, path in all_journals(work):
        worker = path.name.removeprefix(f"{shard}.journal.").removesuffix(".jsonl")
        try:
            counts.setdefault(shard, {})[worker] = _estimate_num_lines(path)
        except FileNotFoundError:  # its shard has just been finished
            counts.pop(shard, None)
    return counts


def _estimate_num_lines(path: Path) -> int:
    """Lines but the first, which holds the settings."""
    with path.open("rb") as file:
        head_bytes = len(file.readline())
        sample = file.read(_SAMPLE_BYTES)
        size = path.stat().st_size
    num_lines = sample.count(b"\n")
    rest = size - head_bytes
    return num_lines if rest <= len(sample) else round(num_lines * rest / len(sample))


def _in_hand(holder: Holder, rows: dict[str, int]) -> InHand:
    return InHand(
        holder.shard,
        holder.worker,
        holder.is_alive,
        round(holder.seconds, 1),
        round(holder.quiet_seconds, 1),
        sum(rows.values()),
    )


def _num_prompts(folder: OutputFolder, stats: dict[str, ShardStats]) -> int:
    for one in stats.values():
        return max(len(one.origins), 1)
    return len(folder.config.asked) if folder.config is not None else 1


def _estimate_num_images(
    folder: OutputFolder, sizes: dict[str, int], stats: dict[str, ShardStats]
) -> int:
    done = sum(one.num_images for one in stats.values())
    rest = sum(size for shard, size in sizes.items() if shard not in stats)
    if not rest:
        return done
    done_bytes = sum(sizes[shard] for shard in stats)
    if not done_bytes:  # nothing to go by yet: the headers of one tar
        smallest = min(folder.tars, key=lambda path: sizes[path.stem])
        done_bytes, per_tar = sizes[smallest.stem], len(index_shard(smallest).samples)
        return round(per_tar * rest / max(done_bytes, 1))
    return done + round(done * rest / done_bytes)


def _finished_work(folder: OutputFolder, stats: dict[str, ShardStats]) -> list[_Work]:
    """Of finished shards; those retried since say nothing of the first time."""
    work = []
    for shard, one in stats.items():
        if not one.num_retries:
            end = table_path(folder.path, shard).stat().st_mtime
            work.append(_Work(one.num_images, end - one.seconds, end))
    return work


def _work_in_hand(
    holders: list[Holder],
    rows: dict[str, dict[str, int]],
    stats: dict[str, ShardStats],
    num_prompts: int,
) -> list[_Work]:
    return [
        _Work(
            rows.get(holder.shard, {}).get(holder.worker, 0) / num_prompts,
            holder.taken,
            holder.touched,
        )
        for holder in holders
        if holder.shard not in stats and holder.touched > holder.taken
    ]


def _rate(work: list[_Work], window: float) -> float:
    """Images a second, each shard's taken as spread evenly over its time."""
    if not work:
        return 0.0
    end = max(one.end for one in work)
    begin = max(end - window, min(one.begin for one in work))
    images = 0.0
    for one in work:
        seconds = max(one.end - one.begin, 1e-3)
        images += one.num_images * max(0.0, one.end - max(one.begin, begin)) / seconds
    return images / max(end - begin, 1e-3)


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.most_common()) or "none"
