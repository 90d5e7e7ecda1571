"""Training shards as an endless, resumable stream of batches, and as plain samples."""

import io
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Self

import torch
from PIL import Image
from streaming import StreamingDataLoader, StreamingDataset
from streaming.base.format import reader_from_json
from streaming.base.format.base.reader import JointReader
from torch import Tensor

from pretrain.data.bad_samples import BadSample, BadSampleError, BadSampleWatch
from pretrain.data.captions import num_texts, sample_texts
from pretrain.data.checks import check_shards, check_sources
from pretrain.data.config import DataConfig
from pretrain.data.tokens import PackedTexts, Tokenizer, pack_tokens
from pretrain.data.transforms import training_transform
from recaption.common.config import UserError

_NAME_OF_ERROR = f"{UserError.__module__}.{UserError.__qualname__}"

#: Samples drawn in place of a bad one before the shards are given up.
MAX_REPLACEMENTS = 20


@dataclass
class Sample:
    """One row of the training shards."""

    key: str
    image: Image.Image
    captions: dict[str, list[str]]  # source -> sentences
    objects: list[dict[str, Any]]  # name, box as fractions (x0, y0, x1, y1), ...; may be empty
    sha256: str
    shard: str


@dataclass
class Batch:
    images: Tensor  # (B, 3, H, W) uint8
    texts: PackedTexts
    keys: list[str]
    num_cut_texts: int  # texts that were longer than the context
    bad_keys: list[str] = field(default_factory=list)  # samples that others stand in for

    @property
    def num_bad_samples(self) -> int:
        return len(self.bad_keys)

    def to(self, device: torch.device) -> Self:
        return type(self)(
            self.images.to(device, non_blocking=True),
            self.texts.to(device, non_blocking=True),
            self.keys,
            self.num_cut_texts,
            self.bad_keys,
        )


def read_samples(folder: Path | str) -> Iterator[Sample]:
    """Every sample of a folder of MDS shards once, in the order in which they were packed."""
    for shard in check_shards(folder):
        reader = reader_from_json(str(folder), None, shard)
        try:
            reader.validate(allow_unsafe_types=False)
        except ValueError as error:  # a column of pickles, which could run anything
            raise UserError(f"{folder} is not read: {error}") from None
        for position in range(reader.size):
            yield _to_sample(reader[position])


class BatchStream:
    """An endless stream of batches, each rank its own share, shuffled anew at every pass.

    The texts and the crop that a sample gets depend on the seed, the pass and the sample's key
    only, so that a resumed stream goes on exactly as an uninterrupted one. The place of a sample
    that cannot be decoded is taken by another, drawn from the seed, the pass and the place: a batch
    is never smaller, and no position shifts.
    """

    def __init__(
        self, config: DataConfig, tokenizer: Tokenizer, image_size: int, seed: int, world_size: int
    ) -> None:
        self._dataset = _TrainingSamples(config, tokenizer, image_size, seed)
        num_samples, global_batch = self._dataset.num_samples, config.batch_size * world_size
        if num_samples < global_batch:
            raise UserError(
                f"{config.train} holds {num_samples} samples, fewer than one global batch of "
                f"{global_batch} ({config.batch_size} a rank x {world_size} ranks): "
                "lower data.batch_size or pack more"
            )
        if num_samples < config.num_canonical_nodes:
            raise UserError(
                f"{config.train} holds {num_samples} samples, fewer than data.num_canonical_nodes="
                f"{config.num_canonical_nodes}: lower that or pack more"
            )
        self._loader = _Loader(
            self._dataset,
            batch_size=config.batch_size,
            num_workers=config.num_workers,
            collate_fn=_Collate(num_texts(config.captions)),
            drop_last=True,
            pin_memory=torch.cuda.is_available(),
            prefetch_factor=4 if config.num_workers else None,
            worker_init_fn=_leave_signals_to_the_rank,
        )
        self._watch = BadSampleWatch(config.max_bad_share)

    @property
    def num_samples(self) -> int:
        return self._dataset.num_samples

    def num_ready_batches(self) -> int | None:
        """Batches that the workers have prepared and nobody took yet; None without workers."""
        queue = getattr(self._loader.batches, "_data_queue", None)
        return None if queue is None else queue.qsize()

    def __iter__(self) -> Iterator[Batch]:
        while True:
            # Loader workers are forked at each pass and take the number of it with them.
            try:
                for images, texts, keys, num_cut_texts, bad_samples in self._loader:
                    self._watch.look_at(len(keys), bad_samples)
                    bad_keys = [bad.key for bad in bad_samples]
                    yield Batch(images, texts, keys, num_cut_texts, bad_keys)
            except UserError as error:
                # A worker's error arrives with the worker's traceback and its own name before it.
                message = str(error).strip().splitlines()[-1]
                raise UserError(message.removeprefix(f"{_NAME_OF_ERROR}: ")) from None
            self._dataset.pass_index += 1

    def state_dict(self) -> dict[str, Any]:
        """The position behind the last batch handed out; the same on every rank."""
        state = self._loader.state_dict()
        assert state is not None
        return {**state, "pass_index": self._dataset.pass_index}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._dataset.pass_index = state["pass_index"]
        self._loader.load_state_dict(
            {name: value for name, value in state.items() if name != "pass_index"}
        )


class _Loader(StreamingDataLoader):
    """Keeps hold of the pass that is under way, to be asked for its queue."""

    batches: Any = None

    def _get_iterator(self) -> Any:
        self.batches = super()._get_iterator()
        return self.batches


#: Image, tokens of its texts, key, how many of the texts were cut, samples it stands in for.
_Prepared = tuple[Tensor, list[list[int]], str, int, list[BadSample]]


class _TrainingSamples(StreamingDataset):
    def __init__(
        self, config: DataConfig, tokenizer: Tokenizer, image_size: int, seed: int
    ) -> None:
        check_shards(config.train)
        check_sources(config)
        super().__init__(
            local=config.train,
            batch_size=config.batch_size,
            shuffle=True,
            shuffle_seed=seed,
            num_canonical_nodes=config.num_canonical_nodes,
        )
        self.pass_index = 0
        self._config = config
        self._tokenizer = tokenizer
        self._seed = seed
        self._transform = training_transform(config.image, image_size)

    def __getitem__(self, at: Any) -> _Prepared:
        bad: list[BadSample] = []
        # Not the next ones: where a disk is damaged, the neighbours are bad as well.
        places = Random(f"{self._seed}/{self.pass_index}/{at}")
        index = int(at)
        while len(bad) <= MAX_REPLACEMENTS:
            try:
                return *self._prepare(index), bad
            except BadSampleError as error:
                bad.append(error.bad)
            index = places.randrange(self.num_samples)
        raise UserError(f"{bad[0]}; nor could {len(bad) - 1} others: pack the shards again")

    def _prepare(self, index: int) -> tuple[Tensor, list[list[int]], str, int]:
        row, file = self._read_row(index)
        key, shard = row["key"], row["shard"]
        rng = Random(f"{self._seed}/{self.pass_index}/{key}")
        try:
            texts = sample_texts(row["captions"], self._config.captions, rng)
        except ValueError as error:
            raise UserError(f"sample {key!r} of shard {shard}: {error}") from None
        try:
            image = self._transform(Image.open(io.BytesIO(row["image"])), rng)
        except Exception as error:  # Pillow's plugins raise nearly anything on damaged bytes.
            reason = f"{type(error).__name__}: {error}"
            raise BadSampleError(BadSample(key, shard, file, reason)) from None
        whole = [self._tokenizer.encode_whole(text) for text in texts]
        tokens = [self._tokenizer.cut(text) for text in whole]
        num_cut = sum(len(a) < len(b) for a, b in zip(tokens, whole, strict=True))
        return image, tokens, key, num_cut

    def _read_row(self, index: int) -> tuple[dict[str, Any], str]:
        """A row of the shards, and the name of the file it stands in."""
        shard_index, position = self.spanner[index]
        shard = self.shards[shard_index]
        assert isinstance(shard, JointReader)  # all of a sample in one file, as MDS has it
        file = (shard.zip_data or shard.raw_data).basename
        try:
            return shard[position], file
        except FileNotFoundError:
            path = Path(self._config.train) / file
            if not path.exists():  # the streaming library would look for it again and again
                raise UserError(
                    f"{path} is gone since training began: copy or pack the shards again"
                ) from None
            return super().__getitem__(index), file  # a compressed shard, which this unpacks
        except ValueError as error:  # bytes that are no text or no JSON
            reason = f"{type(error).__name__}: {error}"
            raise BadSampleError(BadSample(f"#{index}", "unknown", file, reason)) from None


@dataclass
class _Collate:
    num_texts_per_image: int

    def __call__(
        self, samples: list[_Prepared]
    ) -> tuple[Tensor, PackedTexts, list[str], int, list[BadSample]]:
        images, tokens, keys, num_cut, bad = zip(*samples, strict=True)
        captions = [caption for sample_tokens in tokens for caption in sample_tokens]
        # The images come first: the streaming loader counts samples by the first value.
        texts = pack_tokens(captions, self.num_texts_per_image)
        return (
            torch.stack(images),
            texts,
            list(keys),
            sum(num_cut),
            [b for some in bad for b in some],
        )


def _to_sample(row: dict[str, Any]) -> Sample:
    try:
        image = Image.open(io.BytesIO(row["image"]))
        image.load()
    except (OSError, Image.DecompressionBombError) as error:
        raise UserError(
            f"the image of {row['key']!r} (packed from shard {row['shard']}) cannot be decoded: "
            f"{error}; the training shard is damaged, pack it again"
        ) from None
    return Sample(row["key"], image, row["captions"], row["objects"], row["sha256"], row["shard"])


def _leave_signals_to_the_rank(worker: int) -> None:
    """Ctrl-C, and what Slurm sends, reach every process of a job; the rank decides what to do.

    SIGTERM ends a worker only if the rank itself sends it, as torch does to close the loader.
    """
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    threading.Thread(target=_end_when_the_rank_says, daemon=True).start()


def _end_when_the_rank_says() -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
        pass
    os._exit(0)
