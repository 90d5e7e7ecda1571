"""Samples made ready for the engine by processes ahead of it: decoded, scaled, prompts filled in.

A process that dies with a picture in hand (a decoder that crashes, the machine out of memory)
takes the pool with it. The pool is made anew, and the samples that the old one had are tried again
one at a time, by a process of their own: a picture that kills that, too, costs its own row only.
"""

import asyncio
import multiprocessing
import os
import signal
import warnings
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from recaption.alt_text import clean_alt_text, gives_orders
from recaption.common.processes import end_with_parent
from recaption.engine.encoding import EncodedImage, ImageEncoding
from recaption.images import ImageConfig
from recaption.pictures import read_picture
from recaption.prompts import PromptConfig
from recaption.shards import Sample, Shard, ShardIndex

#: Beside the engine's processes.
_NICENESS = 10


@dataclass(frozen=True)
class PreparedSample:
    """A sample's picture and texts, or why there is no picture (``code: detail``)."""

    key: str
    sha256: str | None = None
    image: Image.Image | EncodedImage | None = None
    alt_text: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    #: What is asked about it, by the prompt's id.
    questions: dict[str, str] = field(default_factory=dict)
    failure: str | None = None
    #: What was odd and did not cost the sample: ``text-missing``, ``animated``, ...
    notes: list[str] = field(default_factory=list)


def prepare(
    shard: Shard,
    config: ImageConfig,
    prompts: Mapping[str, PromptConfig],
    sample: Sample,
    caption: str | None = None,
) -> PreparedSample:
    """Args: caption: of an earlier run, for prompts with ``{caption}``."""
    texts = shard.read_texts(sample)
    notes = list(texts.problems)
    picture = read_picture(shard, sample, config)
    if picture.decoded is None:
        return PreparedSample(sample.key, picture.sha256, failure=picture.failure, notes=notes)
    notes.extend(picture.decoded.notes)
    if texts.alt_text and gives_orders(texts.alt_text):
        notes.append("alt-text-gives-orders")
    values = {"alt_text": clean_alt_text(texts.alt_text or ""), "caption": caption or ""}
    return PreparedSample(
        sample.key,
        picture.sha256,
        picture.decoded.image,
        texts.alt_text,
        texts.metadata,
        {prompt_id: prompt.fill_in(values) for prompt_id, prompt in prompts.items()},
        notes=notes,
    )


class Preparers:
    """A pool of processes that prepare samples.

    Args:
        num_processes: processes.
        config: how pictures are decoded.
        prompts: what is asked about each, by its id.
        hand_over: whether the pictures are wanted; else they are looked at, and stay behind.
        encoding: how they are encoded before; None: they come as they are decoded.
    """

    def __init__(
        self,
        num_processes: int,
        config: ImageConfig,
        prompts: Mapping[str, PromptConfig],
        hand_over: bool = True,
        encoding: ImageEncoding | None = None,
    ) -> None:
        self._num_processes, self._config, self._hand_over = num_processes, config, hand_over
        self._prompts = dict(prompts)
        self._encoding = encoding
        self._pool = _new_pool(num_processes)
        self._one_at_a_time = asyncio.Lock()
        self._single: ProcessPoolExecutor | None = None
        self.num_deaths = 0

    def start(self) -> None:
        """Starts the processes ahead of the first sample; they are ready when the engine is."""
        for _ in range(self._num_processes):
            self._pool.submit(os.getpid)

    async def prepare(
        self, shard: Shard, sample: Sample, caption: str | None = None
    ) -> PreparedSample:
        how = (self._config, self._prompts, self._hand_over, self._encoding)
        work = partial(_prepare_in_process, shard.path, *how, sample, caption)
        loop = asyncio.get_running_loop()
        pool = self._pool
        try:
            return await loop.run_in_executor(pool, work)
        except BrokenProcessPool:
            self._replace(pool)
        async with self._one_at_a_time:
            self._single = self._single or _new_pool(1)
            try:
                return await loop.run_in_executor(self._single, work)
            except BrokenProcessPool:
                self._single.shutdown(wait=False)
                self._single = None
                failure = "decoder-died: the process that read the image was killed, twice"
                return PreparedSample(sample.key, failure=failure)

    def close(self) -> None:
        for pool in (self._pool, self._single):
            if pool is not None:
                pool.shutdown(cancel_futures=True)

    def _replace(self, broken: ProcessPoolExecutor) -> None:
        if broken is self._pool:
            self.num_deaths += 1
            self._pool = _new_pool(self._num_processes)
            broken.shutdown(wait=False, cancel_futures=True)


def _new_pool(num_processes: int) -> ProcessPoolExecutor:
    # Not forked: this process has threads and, with an engine, gigabytes. Nor by a server that
    # forks: it and its processes would outlive this one if that is killed.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(num_processes, context, _begin_process, (os.getpid(),))


def _begin_process(parent: int) -> None:
    end_with_parent(parent)
    # They are far ahead; what feeds the engine has less time, where both want the same core.
    os.nice(_NICENESS)
    # Ctrl-C reaches every process of a terminal; the one that gives out the work decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # `images.max_pixels` decides instead, and what it refuses is a row.
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)


#: The tar that this process read last, kept open.
_open: dict[Path, Shard] = {}


def _prepare_in_process(
    path: Path,
    config: ImageConfig,
    prompts: Mapping[str, PromptConfig],
    hand_over: bool,
    encoding: ImageEncoding | None,
    sample: Sample,
    caption: str | None,
) -> PreparedSample:
    if path not in _open:
        for old in _open.values():
            old.close()
        _open.clear()
        _open[path] = Shard(path, ShardIndex())
    prepared = prepare(_open[path], config, prompts, sample, caption)
    if not hand_over:
        return replace(prepared, image=None)
    if encoding is not None and isinstance(prepared.image, Image.Image):
        return replace(prepared, image=encoding.encode(prepared.image))
    return prepared
