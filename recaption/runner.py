"""Captions every tar of a folder: read and decode ahead, caption, filter, write the table."""

import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from recaption.common.config import UserError, write_config
from recaption.common.progress import Progress
from recaption.config import RunConfig
from recaption.engine import (
    CaptionAnswer,
    CaptionEngine,
    CaptionOrigin,
    CaptionRequest,
    build_engine,
    caption_origin,
)
from recaption.filters import CaptionFilter, near_duplicates
from recaption.images import ImageConfig
from recaption.pictures import read_picture
from recaption.prefetch import map_ahead
from recaption.sentences import split_sentences
from recaption.shards import Sample, Shard, find_shards, open_shard
from recaption.table import CaptionRow, ShardStats, SourceFile, is_finished, read_stats, write_table


@dataclass
class RunSummary:
    """Figures of all shards of the input, those that were finished before included."""

    num_shards: int = 0
    num_skipped_shards: int = 0
    num_damaged_shards: int = 0
    num_images: int = 0
    status: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    num_bad_members: int = 0
    num_tokens: int = 0
    #: Of this run alone: images that got a row, whatever it says.
    num_processed: int = 0
    seconds: float = 0.0
    images_per_second: float = 0.0

    def add(self, stats: ShardStats) -> None:
        self.num_images += stats.num_rows
        self.num_damaged_shards += stats.truncated
        self.status.update(stats.status)
        self.reasons.update(stats.reasons)
        self.notes.update(stats.notes)
        self.num_bad_members += len(stats.bad_members)
        self.num_tokens += stats.num_tokens

    def __str__(self) -> str:
        text = (
            f"{self.num_shards} shards, {self.num_skipped_shards} of them finished before; "
            f"{self.num_processed:,} of {self.num_images:,} images processed now in "
            f"{self.seconds:.1f} s, {self.images_per_second:.1f} images/s"
        )
        counts = [*sorted(self.status.items()), *sorted((self.reasons + self.notes).items())]
        counts += [("bad members", self.num_bad_members), ("cut off tars", self.num_damaged_shards)]
        return "; ".join([text, ", ".join(f"{name} {count:,}" for name, count in counts if count)])


@dataclass(frozen=True)
class PreparedSample:
    """A sample as the decode threads hand it on: a request, or why there is none."""

    key: str
    sha256: str | None
    request: CaptionRequest | None
    failure: str | None
    notes: list[str]


def run(config: RunConfig) -> RunSummary:
    """Captions all shards that are not finished yet.

    Raises:
        UserError: no shards, an unfit configuration, or tables of another prompt or model.
    """
    if config.filters.image_text.model:
        raise UserError("filters.image_text: `recaption run` scores no images yet; leave it empty")
    shards = find_shards(config.input)
    origin = caption_origin(config.engine, config.prompt, config.images)
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    filters = asdict(config.filters)
    pending = [path for path in shards if not is_finished(output, path, origin, filters)]
    summary = RunSummary(num_shards=len(shards), num_skipped_shards=len(shards) - len(pending))
    for path in sorted(set(shards) - set(pending)):
        finished = read_stats(output, path.stem)
        assert finished is not None, path
        summary.add(finished)
    if not pending:
        return summary
    write_config(config, output / "config.yaml")

    judge = CaptionFilter(config.filters, [config.prompt.text, config.prompt.system])
    engine = build_engine(config.engine, config.prompt)
    sizes = [path.stat().st_size for path in pending]
    try:
        with (
            Progress(None, "images") as progress,
            ThreadPoolExecutor(config.num_decode_threads) as pool,
        ):
            for number, path in enumerate(pending):
                with open_shard(path) as shard:
                    if shard.index.damage is not None:
                        print(f"warning: {path}: {shard.index.damage}", file=sys.stderr)
                    progress.total = progress.done + shard.estimate_num_samples(sizes[number:])
                    stats = _caption_shard(shard, engine, judge, origin, config, pool, progress)
                summary.add(stats)
            summary.num_processed = progress.done
            summary.seconds = round(progress.seconds, 3)
            summary.images_per_second = round(progress.rate, 2)
    finally:
        engine.close()
    return summary


def _caption_shard(
    shard: Shard,
    engine: CaptionEngine,
    judge: CaptionFilter,
    origin: CaptionOrigin,
    config: RunConfig,
    pool: ThreadPoolExecutor,
    progress: Progress,
) -> ShardStats:
    """Writes the shard's table: one row for every key of the tar, in its order."""
    started = time.monotonic()
    rows: dict[str, CaptionRow] = {}
    hashes: dict[str, str | None] = {}
    notes = shard.count_ignored()

    def read_requests() -> Iterator[CaptionRequest]:
        prepare = partial(_prepare, shard, config.images)
        for sample in map_ahead(pool, prepare, shard.index.samples, config.num_decoded_ahead):
            notes.update(sample.notes)
            hashes[sample.key] = sample.sha256
            if sample.request is not None:
                yield sample.request
            else:
                rows[sample.key] = CaptionRow(sample.key, sample.sha256, "failed", sample.failure)
                progress.advance()

    for answer in engine.caption(read_requests()):
        rows[answer.key] = _to_row(answer, hashes[answer.key], judge)
        progress.advance(note=f"shard {shard.name}")

    ordered = [rows[sample.key] for sample in shard.index.samples]
    fit = [row.caption if row.status == "ok" else None for row in ordered]
    for row, reason in zip(
        ordered, near_duplicates(fit, config.filters.near_duplicates), strict=True
    ):
        if reason is not None:
            row.status, row.reason = "rejected", reason
    seconds = time.monotonic() - started
    stats = ShardStats(
        shard=shard.name,
        source=SourceFile.of(shard.path),
        origin=origin,
        filters=asdict(config.filters),
        num_rows=len(ordered),
        status=dict(Counter(row.status for row in ordered)),
        reasons=dict(Counter(row.reason.split(":")[0] for row in ordered if row.reason)),
        notes=dict(notes),
        bad_members=[asdict(member) for member in shard.index.bad_members],
        truncated=shard.index.damage is not None,
        damage=shard.index.damage,
        num_lost_bytes=shard.index.num_lost_bytes,
        num_tokens=sum(row.num_tokens or 0 for row in ordered),
        seconds=round(seconds, 3),
        images_per_second=round(len(ordered) / max(seconds, 1e-9), 2),
    )
    write_table(Path(config.output), ordered, stats)
    return stats


def _prepare(shard: Shard, config: ImageConfig, sample: Sample) -> PreparedSample:
    texts = shard.read_texts(sample)
    notes = list(texts.problems)
    picture = read_picture(shard, sample, config)
    if picture.decoded is None:
        return PreparedSample(sample.key, picture.sha256, None, picture.failure, notes)
    if picture.decoded.is_animated:
        notes.append("animated")
    request = CaptionRequest(sample.key, picture.decoded.image, texts.alt_text, texts.metadata)
    return PreparedSample(sample.key, picture.sha256, request, None, notes)


def _to_row(answer: CaptionAnswer, sha256: str | None, judge: CaptionFilter) -> CaptionRow:
    if answer.failure is not None:
        return CaptionRow(answer.key, sha256, "failed", answer.failure)
    verdict = judge.judge(answer.caption, answer.finish_reason)
    # Sentences that the source gave are those of its own words.
    sentences = answer.sentences if verdict.raw_caption is None else None
    return CaptionRow(
        key=answer.key,
        sha256=sha256,
        status="ok" if verdict.reason is None else "rejected",
        reason=verdict.reason,
        caption=verdict.caption,
        sentences=split_sentences(verdict.caption) if sentences is None else sentences,
        num_tokens=answer.num_tokens,
        finish_reason=answer.finish_reason,
    )
