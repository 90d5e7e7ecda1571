"""A worker: takes tars that nobody has, decodes ahead, asks the engine, writes tables.

Shards follow each other without a pause: while the last answers of one are outstanding, samples of
the next are asked already.
"""

import asyncio
import os
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from recaption.common.config import UserError, write_config
from recaption.common.progress import Progress
from recaption.common.threads import in_thread
from recaption.config import RetryConfig, RunConfig
from recaption.engine import (
    CaptionAnswer,
    CaptionEngine,
    CaptionRequest,
    build_engine,
    caption_origins,
)
from recaption.judging import Judge
from recaption.metrics import RunMetrics
from recaption.open_shard import LostClaim, OpenShard
from recaption.prepare import PreparedSample, Preparers
from recaption.shards import Sample, find_shards
from recaption.table import CaptionRow, ShardStats, is_finished, read_stats
from recaption.work.claims import Claims
from recaption.work.leftovers import discard_finished
from recaption.work.settings import agree_on_settings
from recaption.work.signs_of_life import SignsOfLife


@dataclass
class RunSummary:
    """Figures of all shards of the input, those that others finished included."""

    num_shards: int = 0
    num_skipped_shards: int = 0
    num_damaged_shards: int = 0
    num_images: int = 0
    status: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    num_bad_members: int = 0
    num_tokens: int = 0
    #: Of this worker alone: images that got their rows, whatever these say.
    num_processed: int = 0
    num_engine_restarts: int = 0
    num_engine_recycles: int = 0
    seconds: float = 0.0
    images_per_second: float = 0.0

    def add(self, stats: ShardStats) -> None:
        self.num_images += stats.num_images
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


def run(config: RunConfig) -> RunSummary:
    """Captions all shards that are not finished yet, together with the workers beside this one.

    Raises:
        UserError: no shards, an unfit configuration, or tables of another prompt or model.
    """
    worker = _Worker(config, retried=None)
    return worker.run()


def retry(config: RetryConfig) -> RunSummary:
    """Asks the failed rows of finished shards again; the other rows stay as they are."""
    return _Worker(config, retried=config.reasons).run()


class _Worker:
    def __init__(self, config: RunConfig, retried: list[str] | None) -> None:
        self._config, self._retried = config, retried
        self._output = Path(config.output)
        self._shards = find_shards(config.input)
        self._origins = caption_origins(config.engine, config.asked, config.images)
        self._filters = asdict(config.filters)
        self._summary = RunSummary(num_shards=len(self._shards))
        self._metrics = RunMetrics(config.metrics, config.output)
        # What another worker retries in the meantime is not retried again.
        self._num_retries: dict[str, int | None] = {}
        if retried is not None:
            self._num_retries = {path.stem: self._retries_of(path.stem) for path in self._shards}

    def run(self) -> RunSummary:
        pending = [path for path in self._shards if not self._is_done(path)]
        self._summary.num_skipped_shards = len(self._shards) - len(pending)
        work = self._output / "work"
        if pending:
            log = work / f"engine-{socket.gethostname()}-{os.getpid()}.log"
            engine = build_engine(self._config.engine, self._config.asked, log)
            self._judge = Judge(self._config.filters, self._config.asked)
            agree_on_settings(work, self._origins, self._filters)
            if self._retried is None:
                write_config(self._config, self._output / "config.yaml")
            with self._metrics:
                try:
                    asyncio.run(self._work(pending, engine))
                except* asyncio.CancelledError:
                    raise KeyboardInterrupt from None
                except* UserError as errors:
                    raise errors.exceptions[0] from None
        if work.is_dir():
            with Claims(work, self._config.claims) as claims:
                names = [path.stem for path in self._shards]
                discard_finished(work, claims, names, self._retries_of)
        for path in self._shards:
            stats = read_stats(self._output, path.stem)
            if stats is not None:
                self._summary.add(stats)
        return self._summary

    async def _work(self, pending: list[Path], engine: CaptionEngine) -> None:
        preparers = Preparers(
            self._config.num_decode_processes,
            self._config.images,
            self._config.asked,
            hand_over=self._judge.sees_images
            or (engine.sees_images and any(p.shows_image for p in self._config.asked.values())),
            encoding=engine.encoding,
        )
        _cancel_at_signals()
        self._metrics.watch(engine, preparers)
        self._metrics.set("shards", len(self._shards))
        self._engine = engine
        self._open: set[OpenShard] = set()
        self._pending = pending
        prepared: asyncio.Queue[_Ahead | None] = asyncio.Queue(self._config.num_decoded_ahead)
        try:
            with Claims(self._output / "work", self._config.claims) as claims:
                preparers.start()
                await engine.start()
                self._slots = asyncio.Semaphore(engine.max_in_flight)
                self._metrics.set("request_slots", engine.max_in_flight)
                with Progress(None, "images") as self._progress:
                    async with asyncio.TaskGroup() as group:
                        group.create_task(self._read_ahead(pending, claims, preparers, prepared))
                        while (ahead := await self._next(prepared)) is not None:
                            await self._ask_all(ahead, group)
                self._summary.num_processed = self._progress.done
                self._summary.seconds = round(self._progress.seconds, 3)
                self._summary.images_per_second = round(self._progress.rate, 2)
        finally:
            for shard in self._open:
                shard.close()
            preparers.close()
            await engine.close()
            self._summary.num_engine_restarts = getattr(engine, "num_restarts", 0)
            self._summary.num_engine_recycles = getattr(engine, "num_recycles", 0)

    async def _read_ahead(
        self,
        pending: list[Path],
        claims: Claims,
        preparers: Preparers,
        prepared: "asyncio.Queue[_Ahead | None]",
    ) -> None:
        """Puts samples into the queue in their order, each with its decoding under way."""
        async for shard in self._take_shards(pending, claims):
            was_complete = shard.is_complete  # no samples, or every row stood in the journals
            for sample in shard.shard.index.samples:
                prompts = shard.unanswered(sample)
                if prompts:
                    task = asyncio.create_task(
                        preparers.prepare(shard.shard, sample, shard.caption_of(sample.key))
                    )
                    task.add_done_callback(lambda _: self._metrics.add("images_ready", 1))
                    await prepared.put(_Ahead(shard, sample, prompts, task))
            if was_complete:
                await self._finish(shard)
        await prepared.put(None)

    async def _take_shards(self, pending: list[Path], claims: Claims) -> AsyncIterator[OpenShard]:
        """Opens one shard after the other that nobody else has, until all are finished."""
        others = SignsOfLife(self._output / "work")
        while pending:
            self._metrics.shards_left(len(pending) + len(self._open))
            took_one = False
            for path in list(pending):
                if self._is_done(path):
                    pending.remove(path)
                    continue
                claim = claims.take(path.stem)
                if claim is None:
                    continue
                if self._is_done(path):  # its holder has just finished it
                    claims.release(claim)
                    pending.remove(path)
                    continue
                pending.remove(path)
                took_one = True
                shard = await in_thread(
                    OpenShard, path, claim, claims, self._config, self._origins, self._retried
                )
                if shard.shard.index.damage is not None:
                    print(f"warning: {path}: {shard.shard.index.damage}", file=sys.stderr)
                sizes = [other.stat().st_size for other in (path, *pending)]
                self._progress.total = self._progress.done + shard.shard.estimate_num_samples(sizes)
                self._open.add(shard)
                self._metrics.took(claim.number)
                yield shard
            if took_one:
                others = SignsOfLife(self._output / "work")
            elif pending:
                # What a dead worker has is taken over as soon as its claim is stale.
                is_in_good_hands = others.of_all(path.stem for path in pending)
                if is_in_good_hands and not self._config.wait_for_others:
                    print(f"left to the workers that have them: {len(pending)} shards")
                    return
                await asyncio.sleep(self._config.claims.heartbeat)

    async def _next(self, prepared: "asyncio.Queue[_Ahead | None]") -> "_Ahead | None":
        with self._metrics.waiting("engine_wait_seconds"):
            return await prepared.get()

    async def _ask_all(self, ahead: "_Ahead", group: asyncio.TaskGroup) -> None:
        with self._metrics.waiting("engine_wait_seconds"):
            sample = await ahead.preparing
        self._metrics.add("images_ready", -1)
        if sample.failure is not None:
            rows = [
                CaptionRow(sample.key, sample.sha256, name, "failed", sample.failure)
                for name in ahead.prompts
            ]
            await self._add(ahead.shard, rows, sample.notes)
            return
        remaining = set(ahead.prompts)
        for number, name in enumerate(ahead.prompts):
            with self._metrics.waiting("image_wait_seconds"):
                await self._slots.acquire()
            notes = sample.notes if number == 0 else []
            group.create_task(self._ask(ahead.shard, sample, name, notes, remaining))

    async def _ask(
        self,
        shard: OpenShard,
        sample: PreparedSample,
        prompt_id: str,
        notes: list[str],
        remaining: set[str],
    ) -> None:
        try:
            with self._metrics.counted("requests_in_flight"):
                answer = await self._answer(shard, sample, prompt_id)
        finally:
            self._slots.release()
        row, further_notes = await self._judge.judge(sample, prompt_id, answer)
        remaining.discard(prompt_id)
        await self._add(shard, [row], [*notes, *further_notes], is_last=not remaining)

    async def _answer(
        self, shard: OpenShard, sample: PreparedSample, prompt_id: str
    ) -> CaptionAnswer:
        prompt = self._config.asked[prompt_id]
        if prompt.needs("caption") and shard.caption_of(sample.key) is None:
            return CaptionAnswer(failure="no-caption: no ok row in the tables of `captions`")
        image = sample.image if prompt.shows_image else None
        question = sample.questions[prompt_id]
        request = CaptionRequest(
            sample.key, prompt_id, question, image, sample.alt_text, sample.metadata
        )
        return await self._engine.answer(request)

    async def _add(
        self, shard: OpenShard, rows: list[CaptionRow], notes: list[str], is_last: bool = True
    ) -> None:
        shard.add(rows, notes)
        self._metrics.rows(rows, is_last)
        if is_last:
            self._progress.advance(note=f"shard {shard.shard.name}")
        if shard.is_complete:
            await self._finish(shard)

    async def _finish(self, shard: OpenShard) -> None:
        try:
            with self._metrics.finishing(LostClaim):
                await shard.finish()
        except LostClaim:
            print(
                f"warning: {shard.shard.name}: another worker took this shard over, and has what "
                "this one answered; if it was not suspended, claims.stale_after is too short",
                file=sys.stderr,
            )
        self._open.discard(shard)
        shard.close()
        self._metrics.shards_left(len(self._pending) + len(self._open))

    def _is_done(self, path: Path) -> bool:
        finished = is_finished(self._output, path, self._origins, self._filters)
        if self._retried is None or not finished:
            return finished or self._retried is not None
        stats = read_stats(self._output, path.stem)
        if stats is None or stats.num_retries != self._num_retries[path.stem]:
            return True
        codes = self._retried or list(stats.reasons)
        return not (stats.status.get("failed") and any(stats.reasons.get(code) for code in codes))

    def _retries_of(self, shard: str) -> int | None:
        stats = read_stats(self._output, shard)
        return None if stats is None else stats.num_retries


def _cancel_at_signals() -> None:
    """Ctrl-C, or what tells a job to stop, ends this task: claims are given back for others."""
    task = asyncio.current_task()
    assert task is not None
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, _cancel_once, task)


def _cancel_once(task: "asyncio.Task[object]") -> None:
    """A second signal must not interrupt what the first has begun."""
    if not task.cancelling():
        task.cancel()


@dataclass(frozen=True)
class _Ahead:
    """A sample whose picture is being decoded, and the prompts that it is to be asked."""

    shard: OpenShard
    sample: Sample
    prompts: list[str]
    preparing: "asyncio.Task[PreparedSample]"
