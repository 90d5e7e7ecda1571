"""Training shards as an endless, resumable stream of batches, and as plain samples."""

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from pretrain.data.bad_samples import BadSampleWatch
from pretrain.data.checks import check_sources
from pretrain.data.config import DataConfig
from pretrain.data.order import Position, SampleOrder
from pretrain.data.shards import TrainingShards
from pretrain.data.tokens import PackedTexts, Tokenizer
from pretrain.data.worker import PreparedBatch, TrainingSamples, leave_signals_to_the_rank
from recaption.common.config import UserError

_NAME_OF_ERROR = f"{UserError.__module__}.{UserError.__qualname__}"


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
    shards = TrainingShards(folder)
    for index in range(shards.num_samples):
        yield _to_sample(shards[index])


class BatchStream:
    """An endless stream of batches, each rank its own share, shuffled anew at every pass.

    The texts and the crop that a sample gets depend on the seed, the pass and the sample's key
    only, so that a resumed stream goes on exactly as an uninterrupted one. The place of a sample
    that cannot be decoded is taken by another, drawn from the seed, the pass and the place: a batch
    is never smaller, and no position shifts.

    The workers of an iteration are forked once and prepare batches ahead, those of the next pass
    among them while this one lasts. They end with the iteration.
    """

    def __init__(
        self, config: DataConfig, tokenizer: Tokenizer, image_size: int, seed: int, world_size: int
    ) -> None:
        shards = TrainingShards(config.train, config.num_samples)
        check_sources(config)
        self.num_samples = shards.num_samples
        global_batch = config.batch_size * world_size
        if self.num_samples < global_batch:
            raise UserError(
                f"{config.train} holds {self.num_samples} samples, fewer than one global batch of "
                f"{global_batch} ({config.batch_size} a rank x {world_size} ranks): "
                "lower data.batch_size or pack more"
            )
        if self.num_samples < config.num_canonical_nodes:
            raise UserError(
                f"{config.train} holds {self.num_samples} samples, fewer than "
                f"data.num_canonical_nodes={config.num_canonical_nodes}: lower that or pack more"
            )
        self._num_workers = config.num_workers
        self._order = SampleOrder(shards.sizes, config.batch_size, config.num_canonical_nodes, seed)
        self._position = Position()
        self._samples = TrainingSamples(shards, config, tokenizer, image_size, seed)
        self._watch = BadSampleWatch(config.max_bad_share)
        self._prepared: Any = None

    def num_ready_batches(self) -> int | None:
        """Batches that the workers have prepared and nobody took yet; None without workers."""
        queue = getattr(self._prepared, "_data_queue", None)
        return None if queue is None else queue.qsize()

    def __iter__(self) -> Iterator[Batch]:
        """Batches behind the last one that was handed out; workers begin with them at once."""
        self._prepared = iter(
            DataLoader(
                self._samples,
                batch_size=None,  # the plan has whole batches
                sampler=self._order.batches(self._position),
                num_workers=self._num_workers,
                pin_memory=torch.cuda.is_available(),
                prefetch_factor=4 if self._num_workers else None,
                worker_init_fn=leave_signals_to_the_rank,
                generator=torch.Generator(),  # else it draws from the one that makes the weights
            )
        )
        return self._hand_out(self._prepared)

    def _hand_out(self, prepared: Iterator[PreparedBatch]) -> Iterator[Batch]:
        try:
            for batch in prepared:
                self._watch.look_at(len(batch.keys), batch.bad_samples)
                self._position = batch.end
                bad_keys = [bad.key for bad in batch.bad_samples]
                yield Batch(batch.images, batch.texts, batch.keys, batch.num_cut_texts, bad_keys)
        except UserError as error:
            # A worker's error arrives with the worker's traceback and its own name before it.
            message = str(error).strip().splitlines()[-1]
            raise UserError(message.removeprefix(f"{_NAME_OF_ERROR}: ")) from None
        finally:
            if self._prepared is prepared:
                self._prepared = None  # the last to hold the workers

    def state_dict(self) -> dict[str, Any]:
        """The position behind the last batch handed out; the same on every rank."""
        return {
            "pass_index": self._position.pass_index,
            "sample_in_epoch": self._position.num_samples,
            "initial_physical_nodes": self._order.initial_num_nodes,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The next iteration begins at that position."""
        self._position = Position(state["pass_index"], state["sample_in_epoch"])
        self._order.initial_num_nodes = state["initial_physical_nodes"]


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
