"""What loader workers do: read the samples of a planned batch, decode, crop, tokenise texts."""

import io
import os
import signal
import threading
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from pretrain.data.bad_samples import BadSample, BadSampleError
from pretrain.data.captions import num_texts, sample_texts
from pretrain.data.config import DataConfig
from pretrain.data.order import PlannedBatch, Position
from pretrain.data.shards import TrainingShards
from pretrain.data.tokens import PackedTexts, Tokenizer, pack_tokens
from pretrain.data.transforms import training_transform
from recaption.common.config import UserError

#: Samples drawn in place of a bad one before the shards are given up.
MAX_REPLACEMENTS = 20

#: Image, tokens of its texts, key, how many of the texts were cut, samples it stands in for.
_Prepared = tuple[Tensor, list[list[int]], str, int, list[BadSample]]


@dataclass
class PreparedBatch:
    images: Tensor  # (B, 3, H, W) uint8
    texts: PackedTexts
    keys: list[str]
    num_cut_texts: int
    bad_samples: list[BadSample]
    end: Position  # of the run, behind this batch

    def pin_memory(self) -> Self:
        """In page-locked memory, from which a GPU copies by itself; torch's loader calls this."""
        return replace(self, images=self.images.pin_memory(), texts=self.texts.pin_memory())


class TrainingSamples(Dataset[PreparedBatch]):
    """Prepares planned batches; what comes out depends on the plan and the seed alone."""

    def __init__(
        self,
        shards: TrainingShards,
        config: DataConfig,
        tokenizer: Tokenizer,
        image_size: int,
        seed: int,
    ) -> None:
        self._shards = shards
        self._config = config
        self._tokenizer = tokenizer
        self._seed = seed
        self._transform = training_transform(config.image, image_size)

    def __getitem__(self, planned: PlannedBatch) -> PreparedBatch:
        samples = [self._prepare_or_replace(at, planned.pass_index) for at in planned.indices]
        images, tokens, keys, num_cut, bad = zip(*samples, strict=True)
        captions = [caption for sample_tokens in tokens for caption in sample_tokens]
        return PreparedBatch(
            torch.stack(images),
            pack_tokens(captions, num_texts(self._config.captions)),
            list(keys),
            sum(num_cut),
            [b for some in bad for b in some],
            planned.end,
        )

    def _prepare_or_replace(self, at: int, pass_index: int) -> _Prepared:
        bad: list[BadSample] = []
        # Not the next ones: where a disk is damaged, the neighbours are bad as well.
        places = Random(f"{self._seed}/{pass_index}/{at}")
        index = at
        while len(bad) <= MAX_REPLACEMENTS:
            try:
                return *self._prepare(index, pass_index), bad
            except BadSampleError as error:
                bad.append(error.bad)
            index = places.randrange(self._shards.num_samples)
        raise UserError(f"{bad[0]}; nor could {len(bad) - 1} others: pack the shards again")

    def _prepare(self, index: int, pass_index: int) -> tuple[Tensor, list[list[int]], str, int]:
        row, file = self._read_row(index)
        key, shard = row["key"], row["shard"]
        rng = Random(f"{self._seed}/{pass_index}/{key}")
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
        file = self._shards.file_of(index)
        try:
            return self._shards[index], file
        except ValueError as error:  # bytes that are no text or no JSON
            reason = f"{type(error).__name__}: {error}"
            raise BadSampleError(BadSample(f"#{index}", "unknown", file, reason)) from None


def leave_signals_to_the_rank(worker: int) -> None:
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
