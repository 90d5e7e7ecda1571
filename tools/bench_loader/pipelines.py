"""Three ways from shards to batches: images (B, 3, S, S) float32 normalised, and one text each."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import open_clip_train.data
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transform import image_transform
from PIL import Image
from streaming import StreamingDataset
from torch import Tensor
from torch.utils.data import DataLoader
from webdataset.tariterators import tar_file_expander

from pretrain.data.captions import CaptionsConfig, join_sentences
from pretrain.data.config import DataConfig
from pretrain.data.stream import BatchStream
from pretrain.data.tokens import Tokenizer
from pretrain.data.transforms import ImageConfig, normalise
from tools.bench_loader.data import NUM_TARS, SOURCE

# open_clip was written for webdataset 0.2, which put no mark at the end of a tar.
open_clip_train.data.tar_file_expander = partial(tar_file_expander, eof_value=None)


@dataclass
class LoaderShape:
    """What all three have in common."""

    batch_size: int
    num_workers: int
    image_size: int  # pixels a side that come out
    min_crop_area: float
    context_length: int


class Ours:
    """The trainer's stream, with the normalisation that the trainer does on the device."""

    def __init__(self, mds: Path, shape: LoaderShape) -> None:
        config = DataConfig(
            train=str(mds),
            batch_size=shape.batch_size,
            num_workers=shape.num_workers,
            num_canonical_nodes=1,
            image=ImageConfig(min_crop_area=shape.min_crop_area),
            captions=CaptionsConfig(name="whole", sources=[SOURCE]),
        )
        tokenizer = Tokenizer(shape.context_length)
        self._stream = BatchStream(config, tokenizer, shape.image_size, seed=0, world_size=1)

    def batches(self) -> Iterator[Tensor]:
        for batch in self._stream:
            yield normalise(batch.images)


class OpenClip:
    """open_clip's own: webdataset, its training transform and its tokenizer."""

    def __init__(self, tars: Path, shape: LoaderShape) -> None:
        self._arguments = SimpleNamespace(
            train_data=f"{tars}/{{00000..{NUM_TARS - 1:05d}}}.tar",
            train_num_samples=10**9,  # it repeats the tars
            train_data_upsampling_factors=None,
            dataset_resampled=False,
            seed=0,
            batch_size=shape.batch_size,
            workers=shape.num_workers,
            world_size=1,
        )
        self._transform = _open_clip_transform(shape)
        self._tokenizer = SimpleTokenizer(context_length=shape.context_length)

    def batches(self) -> Iterator[Tensor]:
        data = open_clip_train.data.get_wds_dataset(
            self._arguments, self._transform, True, tokenizer=self._tokenizer
        )
        for images, _ in data.dataloader:
            yield images


class PlainStreaming:
    """StreamingDataset and torch's DataLoader, each sample prepared as open_clip does."""

    def __init__(self, mds: Path, shape: LoaderShape) -> None:
        self._dataset = _PlainSamples(mds, shape)
        self._shape = shape

    def batches(self) -> Iterator[Tensor]:
        loader = DataLoader(
            self._dataset,
            batch_size=self._shape.batch_size,
            num_workers=self._shape.num_workers,
            drop_last=True,
        )
        for images, _ in loader:
            yield images


class _PlainSamples(StreamingDataset):
    def __init__(self, mds: Path, shape: LoaderShape) -> None:
        super().__init__(
            local=str(mds), batch_size=shape.batch_size, shuffle=True, num_canonical_nodes=1
        )
        self._transform = _open_clip_transform(shape)
        self._tokenizer = SimpleTokenizer(context_length=shape.context_length)

    def __getitem__(self, at: Any) -> tuple[Tensor, Tensor]:
        row = super().__getitem__(at)
        image = Image.open(io.BytesIO(row["image"])).convert("RGB")
        text = join_sentences(row["captions"][SOURCE])
        return self._transform(image), self._tokenizer(text)[0]


class Pipeline(Protocol):
    def batches(self) -> Iterator[Tensor]:
        """Endless or one pass; workers start with it and end when it is let go."""


PIPELINES: dict[str, Callable[[Path, LoaderShape], Pipeline]] = {
    "ours": Ours,
    "open_clip": OpenClip,
    "streaming": PlainStreaming,
}


def _open_clip_transform(shape: LoaderShape) -> Any:
    """RandomResizedCrop, to tensor, normalised."""
    return image_transform(
        shape.image_size, is_train=True, aug_cfg={"scale": (shape.min_crop_area, 1.0)}
    )
