"""Samples made ready for the engine by processes ahead of it: read, hashed, decoded, scaled.

A process that dies with a picture in hand (a decoder that crashes, the machine out of memory)
takes the pool with it. The pool is made anew, its samples are tried again, those that were with
it when it died one at a time: a picture that kills its process alone costs its own row only.
"""

import asyncio
import multiprocessing
import os
import signal
import warnings
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from recaption.alt_text import gives_orders
from recaption.common.processes import end_with_parent
from recaption.images import ImageConfig
from recaption.pictures import read_picture
from recaption.shards import Sample, Shard, ShardIndex


@dataclass(frozen=True)
class PreparedSample:
    """A sample's picture and texts, or why there is no picture (``code: detail``)."""

    key: str
    sha256: str | None = None
    image: Image.Image | None = None
    alt_text: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    failure: str | None = None
    #: What was odd and did not cost the sample: ``text-missing``, ``animated``, ...
    notes: list[str] = field(default_factory=list)


def prepare(shard: Shard, config: ImageConfig, sample: Sample) -> PreparedSample:
    texts = shard.read_texts(sample)
    notes = list(texts.problems)
    picture = read_picture(shard, sample, config)
    if picture.decoded is None:
        return PreparedSample(sample.key, picture.sha256, failure=picture.failure, notes=notes)
    notes.extend(picture.decoded.notes)
    if texts.alt_text and gives_orders(texts.alt_text):
        notes.append("alt-text-gives-orders")
    return PreparedSample(
        sample.key,
        picture.sha256,
        picture.decoded.image,
        texts.alt_text,
        texts.metadata,
        notes=notes,
    )


class Preparers:
    """A pool of processes that prepare samples.

    Args:
        num_processes: processes.
        config: how pictures are decoded.
        hand_over: whether the pictures are wanted; else they are looked at, and stay behind.
    """

    def __init__(self, num_processes: int, config: ImageConfig, hand_over: bool = True) -> None:
        self._num_processes, self._config, self._hand_over = num_processes, config, hand_over
        self._pool = _new_pool(num_processes)
        self._alone = asyncio.Lock()
        self.num_deaths = 0

    def start(self) -> None:
        """Starts the processes ahead of the first sample; they are ready when the engine is."""
        for _ in range(self._num_processes):
            self._pool.submit(os.getpid)

    async def prepare(self, shard: Shard, sample: Sample) -> PreparedSample:
        work = partial(_prepare_in_process, shard.path, self._config, self._hand_over, sample)
        loop = asyncio.get_running_loop()
        pool = self._pool
        try:
            return await loop.run_in_executor(pool, work)
        except BrokenProcessPool:
            self._replace(pool)
        async with self._alone:
            with _new_pool(1) as one:
                try:
                    return await loop.run_in_executor(one, work)
                except BrokenProcessPool:
                    failure = "decoder-died: the process that read the image was killed by it"
                    return PreparedSample(sample.key, failure=failure)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _replace(self, broken: ProcessPoolExecutor) -> None:
        if broken is self._pool:
            self.num_deaths += 1
            self._pool = _new_pool(self._num_processes)
            broken.shutdown(wait=False, cancel_futures=True)


def _new_pool(num_processes: int) -> ProcessPoolExecutor:
    # Not forked: this process has threads and, with an engine, gigabytes. Nor by a server that
    # forks: it and its processes would outlive this one if that is killed.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(num_processes, context, _begin_process)


def _begin_process() -> None:
    end_with_parent()
    # Ctrl-C reaches every process of a terminal; the one that gives out the work decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # `images.max_pixels` decides instead, and what it refuses is a row.
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)


#: The tar that this process read last, kept open.
_open: dict[Path, Shard] = {}


def _prepare_in_process(
    path: Path, config: ImageConfig, hand_over: bool, sample: Sample
) -> PreparedSample:
    if path not in _open:
        for old in _open.values():
            old.close()
        _open.clear()
        _open[path] = Shard(path, ShardIndex())
    prepared = prepare(_open[path], config, sample)
    return prepared if hand_over else replace(prepared, image=None)
