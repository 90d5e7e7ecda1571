"""How fast an evaluation encodes, against the plain way of computing the same features.

    python -m tools.bench_encoding [MODEL.yaml] [benchmark=docci root=FOLDER] [key=value ...]

The plain way reads a batch of pictures, one after another, and then encodes it; captions are padded
to the context length (tests/pretrain/plain.py). An evaluation (pretrain/evaluate) reads pictures
ahead while others are encoded, and packs captions. Both in turn, on the same random weights; the
ratio is the median over the turns. Also told: how much of the evaluation's time its encoder waited
for pictures. Without a benchmark the pictures are drawn scenes.
"""

import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pretrain.config import PretrainConfig
from pretrain.data.tokens import Tokenizer
from pretrain.evaluate.benchmarks.base import Options, Picture, RetrievalSet
from pretrain.evaluate.benchmarks.registry import find_benchmark
from pretrain.evaluate.canopy_encoders import CanopyEncoders
from pretrain.evaluate.encode import batches, best_device
from pretrain.evaluate.encode_shared import encode_captions, encode_images
from pretrain.inference import InferenceModel
from pretrain.models.features import ImageFeatures, TextFeatures
from pretrain.models.registry import ModelConfig, build_model
from pretrain.objectives.registry import build_objective
from recaption.common.config import (
    UserError,
    check_at_least,
    load_config,
    print_json,
    run_command,
)
from tests.pretrain import plain
from tools.make_scenes import make_scene
from tools.turns import now, take_turns


@dataclass
class BenchConfig:
    """What is encoded; the default model is CAFT-B."""

    model: ModelConfig = field(default_factory=ModelConfig)
    benchmark: str = ""  # of retrieval, in its official layout; empty: scenes
    root: str = ""  # of the benchmark
    variant: str = ""
    allow_missing: bool = False
    num_images: int = 64  # the first of the benchmark, with their texts
    image_size: int = 640  # pixels a side, of scenes
    batch_size: int = 32
    num_turns: int = 3  # of either way

    def __post_init__(self) -> None:
        for name in ("num_images", "image_size", "batch_size", "num_turns"):
            check_at_least(1, {name: getattr(self, name)})
        if bool(self.benchmark) != bool(self.root):
            raise UserError("give benchmark= and root= together, or neither")
        if self.model.text.name != "part_whole":
            raise UserError(
                f"model.text.name={self.model.text.name}: the plain way is that of CAFT's texts, "
                "part_whole"
            )


class _Timed(CanopyEncoders):
    """Sums up the seconds in which images are encoded."""

    seconds = 0.0

    def encode_images(self, pixels: Sequence[Tensor]) -> ImageFeatures:
        started = now()
        features = super().encode_images(pixels)
        self.seconds += now() - started
        return features


def main(argv: list[str]) -> None:
    config = load_config(BenchConfig, argv, __doc__)
    encoders = _Timed(_random_model(config), "random weights")
    with tempfile.TemporaryDirectory() as folder:
        pictures, texts = _read(config, Path(folder))
        result: dict[str, Any] = {
            "num_threads": torch.get_num_threads(),
            "device": str(best_device()),
            "images": measure_images(config, encoders, pictures),
            "texts": measure_texts(config, encoders, texts),
        }
    for unit in ("images", "texts"):
        figures = result[unit]
        print(
            f"{unit:6} {figures['per_s']:8.1f}/s, the plain way {figures['plain_per_s']:.1f} "
            f"({figures['ratio']:.2f} times as fast)"
        )
    print(f"the encoder waited for pictures {result['images']['waited']:.1%} of the time")
    print_json(argv, result)


def measure_images(
    config: BenchConfig, encoders: _Timed, pictures: Sequence[Picture]
) -> dict[str, float]:
    """Images a second in both ways, and the share of time without one to encode."""
    waited: list[float] = []

    def fast() -> Tensor:
        encoders.seconds, started = 0.0, now()
        encoded = list(encode_images(pictures, encoders, config.batch_size))
        waited.append(1 - encoders.seconds / (now() - started))
        return torch.cat([features.pooled for features in encoded])

    def one_by_one() -> Tensor:
        encoded = [
            encoders.encode_images([encoders.preprocess(picture.open()) for picture in batch])
            for batch in batches(pictures, config.batch_size)
        ]
        return torch.cat([features.pooled for features in encoded])

    figures = _compare(fast, one_by_one, len(pictures), config.num_turns)
    return figures | {"waited": statistics.median(waited[1:])}


def measure_texts(
    config: BenchConfig, encoders: CanopyEncoders, texts: Sequence[str]
) -> dict[str, float]:
    """Captions a second in both ways."""
    model, tokenizer = encoders.inference.model, encoders.inference.tokenizer

    def fast() -> Tensor:
        return _whole(encode_captions(texts, encoders, config.batch_size))

    @torch.inference_mode()
    def padded() -> Tensor:
        encoded = []
        for batch in batches(texts, config.batch_size):
            rows = [encoders.texts_of(caption) for caption in batch]
            shape = len(rows), len(rows[0]), tokenizer.context_length
            tokens = torch.zeros(shape, dtype=torch.int64)
            for place, row in enumerate(rows):
                for part, text in enumerate(row):
                    found = tokenizer.encode(text)
                    tokens[place, part, : len(found)] = torch.tensor(found)
            encoded.append(_whole(plain.plain_text(model, tokens.to(best_device()))))
        return torch.cat(encoded)

    return _compare(fast, padded, len(texts), config.num_turns)


def _compare(
    fast: Callable[[], Tensor], plainly: Callable[[], Tensor], number: int, num_turns: int
) -> dict[str, float]:
    turns = take_turns(fast, plainly, num_turns)
    return {
        "number": number,
        "per_s": number / turns.seconds,
        "plain_per_s": number / turns.plain_seconds,
        "ratio": turns.ratio,
    }


def _random_model(config: BenchConfig) -> InferenceModel:
    torch.manual_seed(0)
    whole = PretrainConfig(run="", model=config.model)
    objective = build_objective(whole.objective, config.model.embed_dim)
    model = build_model(config.model).eval().to(best_device())
    tokenizer = Tokenizer(config.model.text.part.context_length)
    return InferenceModel(model, objective.eval(), tokenizer, whole, Path(), Path())


def _read(config: BenchConfig, folder: Path) -> tuple[list[Picture], list[str]]:
    if not config.benchmark:
        names = [f"{index}.jpg" for index in range(config.num_images)]
        scenes = [make_scene(0, "bench", index, config.image_size) for index in range(len(names))]
        for name, scene in zip(names, scenes, strict=True):
            scene.image().save(folder / name, quality=92)
        return [Picture(folder, name) for name in names], [scene.caption for scene in scenes]
    options = Options(config.variant, config.allow_missing)
    found = find_benchmark(config.benchmark).read(Path(config.root), options)
    if not isinstance(found, RetrievalSet):
        raise UserError(f"{config.benchmark} is not for retrieval: its images have no captions")
    pairs = zip(found.texts, found.image_of_text, strict=True)
    return list(found.images[: config.num_images]), [
        text for text, image in pairs if image < config.num_images
    ]


def _whole(features: TextFeatures) -> Tensor:
    assert features.whole is not None
    return features.whole


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
