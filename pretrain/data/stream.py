"""Training shards as an endless, resumable stream of batches, and as plain samples."""

import io
import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Self

import torch
from PIL import Image
from streaming import StreamingDataLoader, StreamingDataset
from streaming.base.format import reader_from_json
from torch import Tensor

from pretrain.data.captions import num_texts, sample_texts
from pretrain.data.config import DataConfig
from pretrain.data.tokens import PackedTexts, Tokenizer, pack_tokens
from pretrain.data.transforms import training_transform
from recaption.common.config import UserError


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

    def to(self, device: torch.device) -> Self:
        return type(self)(
            self.images.to(device, non_blocking=True),
            self.texts.to(device, non_blocking=True),
            self.keys,
        )


def read_samples(folder: Path | str) -> Iterator[Sample]:
    """Every sample of a folder of MDS shards once, in the order in which they were packed."""
    _check_shards(folder)
    index = json.loads((Path(folder) / "index.json").read_text())
    for shard in index["shards"]:
        reader = reader_from_json(str(folder), None, shard)
        for position in range(reader.size):
            yield _decode(reader[position])


class BatchStream:
    """An endless stream of batches, each rank its own share, shuffled anew at every pass.

    The texts and the crop that a sample gets depend on the seed, the pass and the sample's key
    only, so that a resumed stream goes on exactly as an uninterrupted one.
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
        self._loader = StreamingDataLoader(
            self._dataset,
            batch_size=config.batch_size,
            num_workers=config.num_workers,
            collate_fn=_Collate(num_texts(config.captions)),
            drop_last=True,
            pin_memory=torch.cuda.is_available(),
            prefetch_factor=4 if config.num_workers else None,
            worker_init_fn=_ignore_ctrl_c,
        )

    @property
    def num_samples(self) -> int:
        return self._dataset.num_samples

    def __iter__(self) -> Iterator[Batch]:
        while True:
            # Loader workers are forked at each pass and take the number of it with them.
            try:
                for images, texts, keys in self._loader:
                    yield Batch(images, texts, keys)
            except UserError as error:
                # A worker's error arrives with the worker's traceback before it.
                raise UserError(str(error).strip().splitlines()[-1]) from None
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


class _TrainingSamples(StreamingDataset):
    def __init__(
        self, config: DataConfig, tokenizer: Tokenizer, image_size: int, seed: int
    ) -> None:
        _check_shards(config.train)
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

    def __getitem__(self, at: Any) -> tuple[Tensor, list[list[int]], str]:
        sample = _decode(super().__getitem__(at))
        rng = Random(f"{self._seed}/{self.pass_index}/{sample.key}")
        try:
            texts = sample_texts(sample.captions, self._config.captions, rng)
        except ValueError as error:
            raise UserError(f"sample {sample.key!r} of shard {sample.shard}: {error}") from None
        tokens = [self._tokenizer.encode(text) for text in texts]
        return self._transform(sample.image, rng), tokens, sample.key


@dataclass
class _Collate:
    num_texts_per_image: int

    def __call__(
        self, samples: list[tuple[Tensor, list[list[int]], str]]
    ) -> tuple[Tensor, PackedTexts, list[str]]:
        images, tokens, keys = zip(*samples, strict=True)
        captions = [caption for sample_tokens in tokens for caption in sample_tokens]
        # The images come first: the streaming loader counts samples by the first value.
        return torch.stack(images), pack_tokens(captions, self.num_texts_per_image), list(keys)


def _check_shards(folder: Path | str) -> None:
    if not (Path(folder) / "index.json").is_file():
        raise UserError(
            f"{folder} is not a folder of training shards (no index.json): "
            "`python -m recaption pack` writes one"
        )


def _decode(row: dict[str, Any]) -> Sample:
    try:
        image = Image.open(io.BytesIO(row["image"]))
        image.load()
    except (OSError, Image.DecompressionBombError) as error:
        raise UserError(
            f"the image of {row['key']!r} (packed from shard {row['shard']}) cannot be decoded: "
            f"{error}; the training shard is damaged, pack it again"
        ) from None
    return Sample(row["key"], image, row["captions"], row["objects"], row["sha256"], row["shard"])


def _ignore_ctrl_c(worker: int) -> None:
    """Ctrl-C reaches every process of the terminal; it is the training process's to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
