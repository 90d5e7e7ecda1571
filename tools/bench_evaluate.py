"""How fast benchmarks of retrieval are scored, and in how much memory.

    python -m tools.bench_evaluate [key=value ...] [--json]

On features without a model, so that only scoring is measured: global scores of a set of COCO's size
with ranks, intervals and examples; text-conditioned scores against the same objective asked pair by
pair, in turns, by the median of the ratios; the peak memory of a large set (10,000 x 10,000, CAFT's
three score matrices), of which the first tile is scored in earnest and the others cost nothing.
"""

import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pretrain.evaluate.benchmarks.base import Coverage, Picture, RetrievalSet
from pretrain.evaluate.retrieval_task import figures
from pretrain.evaluate.scores import score_matrix, with_alpha
from pretrain.evaluate.streamed import TILE, streamed_scores
from pretrain.metrics.memory import process_memory
from pretrain.models.features import ImageFeatures, TextFeatures
from pretrain.objectives.base import Objective
from pretrain.objectives.caft import CaftConfig, CaftObjective
from pretrain.objectives.clip import ClipConfig, ClipObjective
from recaption.common.config import check_at_least, load_config, print_json, run_command
from tools.turns import take_turns


@dataclass
class BenchConfig:
    num_images: int = 5000
    num_texts: int = 25_000  # all belong to the images in turn
    embed_dim: int = 512
    num_tokens: int = 64  # of an image, for text-conditioned scores
    num_parts: int = 4  # of a text
    num_conditioned_images: int = 64
    num_conditioned_texts: int = 64
    num_turns: int = 3  # of either way of text-conditioned scoring
    num_large: int = 10_000  # images, and texts, of the set whose memory is measured; 0: none

    def __post_init__(self) -> None:
        least: dict[str, float] = {
            "num_images": self.num_images,
            "num_texts": self.num_texts,
            "num_conditioned_images": self.num_conditioned_images,
            "num_conditioned_texts": self.num_conditioned_texts,
            "num_turns": self.num_turns,
        }
        check_at_least(1, least)


class _Scores:
    """An objective behind the protocol of encoders, for features that are there already."""

    name = "features"

    def __init__(self, objective: Objective) -> None:
        self.objective = objective

    def score(self, images: ImageFeatures, texts: TextFeatures) -> Tensor:
        return score_matrix(self.objective, images, texts, 2048)

    def is_cut(self, caption: str) -> bool:
        return False

    def describe(self) -> dict[str, Any]:
        return {}


class _FirstTile(_Scores):
    """CAFT's three scores; in earnest for the first tile, whose memory is that of any other."""

    has_scored = False

    def score_columns(self, images: ImageFeatures, texts: TextFeatures) -> dict[str, Tensor]:
        assert isinstance(self.objective, CaftObjective)
        whole = score_matrix(with_alpha(self.objective, 0.0), images, texts, 2048)
        local = whole
        if not self.has_scored:
            local = score_matrix(with_alpha(self.objective, 1.0), images, texts, 2048)
        self.has_scored = True
        return {"blended": 0.7 * whole + 0.3 * local, "whole": whole, "local": local}


def main(argv: list[str]) -> None:
    config = load_config(BenchConfig, argv, __doc__)
    torch.manual_seed(0)
    result: dict[str, Any] = {"num_threads": torch.get_num_threads()}
    whole = result["global"] = measure_global(config)
    print(
        f"global, {config.num_images:,} images x {config.num_texts:,} texts: scores "
        f"{whole['scores_s']:.1f} s, ranks, intervals and examples {whole['figures_s']:.1f} s; "
        f"{whole['cpu_s']:.1f} s of CPU"
    )
    pairs = result["conditioned"] = measure_conditioned(config)
    print(
        f"text-conditioned: {pairs['pairs_per_s']:,.0f} pairs/s, one by one "
        f"{pairs['one_by_one_pairs_per_s']:,.0f} ({pairs['ratio']:.1f} times)"
    )
    if config.num_large:
        large = result["large"] = in_process(measure_large, config)
        print(
            f"{config.num_large:,} x {config.num_large:,}: peak of the process "
            f"{large['peak_gib']:.2f} GiB, {large['before_gib']:.2f} of it before"
        )
    print_json(argv, result)


def measure_global(config: BenchConfig) -> dict[str, float]:
    """Seconds of a set of COCO's size with precomputed features."""
    images = ImageFeatures(pooled=torch.randn(config.num_images, config.embed_dim))
    texts = TextFeatures(whole=torch.randn(config.num_texts, config.embed_dim))
    encoders = _Scores(ClipObjective(ClipConfig()))
    data = _set(config.num_images, config.num_texts)
    started, cpu = time.perf_counter(), time.process_time()
    scores = streamed_scores(encoders, iter([images]), config.num_images, texts)
    scored = time.perf_counter()
    figures(scores, data, encoders)
    return {
        "scores_s": scored - started,
        "figures_s": time.perf_counter() - scored,
        "cpu_s": time.process_time() - cpu,
    }


def measure_conditioned(config: BenchConfig) -> dict[str, float]:
    """Pairs a second of CAFT's local score, streamed and one by one."""
    images, texts = _features(config, config.num_conditioned_images, config.num_conditioned_texts)
    objective = CaftObjective(CaftConfig(alpha=1.0), config.embed_dim).eval()
    encoders = _Scores(objective)

    def streamed() -> Tensor:
        scores = streamed_scores(encoders, iter([images]), len(images), texts)
        return scores["score"]

    @torch.inference_mode()
    def one_by_one() -> Tensor:
        rows = []
        for image in range(len(images)):
            pairs = [
                objective.score(images[image : image + 1], texts[text : text + 1])
                for text in range(len(texts))
            ]
            rows.append(torch.cat(pairs, dim=1))
        return torch.cat(rows)

    turns = take_turns(streamed, one_by_one, config.num_turns)
    num_pairs = len(images) * len(texts)
    return {
        "pairs_per_s": num_pairs / turns.seconds,
        "one_by_one_pairs_per_s": num_pairs / turns.plain_seconds,
        "ratio": turns.ratio,
    }


def measure_large(config: BenchConfig) -> dict[str, float]:
    """GiB of this process before, and at its peak; images come a tile at a time."""
    _, texts = _features(config, 1, config.num_large)
    objective = CaftObjective(CaftConfig(), config.embed_dim).eval()

    def images() -> Iterator[ImageFeatures]:
        for start in range(0, config.num_large, TILE):
            yield _features(config, min(TILE, config.num_large - start), 1)[0]

    before = _peak_gib()
    encoders = _FirstTile(objective)
    scores = streamed_scores(encoders, images(), config.num_large, texts)
    figures(scores, _set(config.num_large, config.num_large), encoders)
    return {"before_gib": before, "peak_gib": _peak_gib()}


def in_process(function: Callable[[BenchConfig], dict], config: BenchConfig) -> dict[str, float]:
    """Runs it in a process of its own, whose peak memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, (config,))


def _features(
    config: BenchConfig, num_images: int, num_texts: int
) -> tuple[ImageFeatures, TextFeatures]:
    width = config.embed_dim
    images = ImageFeatures(
        pooled=torch.randn(num_images, width),
        fine_tokens=torch.randn(num_images, config.num_tokens, width),
    )
    parts = torch.randn(num_texts, config.num_parts, width)
    return images, TextFeatures(whole=torch.randn(num_texts, width), parts=parts)


def _set(num_images: int, num_texts: int) -> RetrievalSet:
    pictures = [Picture(Path(), f"{number}.jpg") for number in range(num_images)]
    owners = [text * num_images // num_texts for text in range(num_texts)]
    return RetrievalSet(pictures, [""] * num_texts, owners, Coverage(num_images))


def _peak_gib() -> float:
    # Not getrusage's figure: a child's begins with that of its parent.
    return process_memory()["peak"] / 2**30


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
