"""What a CAFT step costs, against the plain way of computing the same numbers.

    python -m tools.bench_step [captions=FOLDER] [MODEL.yaml] [key=value ...] [--json]

The plain way (tests/pretrain/plain.py) is that of the published code: padded texts, queries
projected for every pair, sampling over whole tokens; superpixels are the same in both. Both compute
the same loss from the same weights and inputs, forward and backward, in turn; the ratio is the
median over the turns. Peak memory is that of a fresh process for each way, told twice: of the
tensors (trained weights, gradients, activations), and of the process, with all libraries.
"""

import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from pretrain.data.captions import CaptionsConfig, sample_texts, split_caption
from pretrain.data.tokens import PackedTexts, Tokenizer
from pretrain.data.transforms import ImageConfig as TransformConfig
from pretrain.data.transforms import evaluation_transform, normalise
from pretrain.distributed.exchange import Exchange, Homeward
from pretrain.metrics.memory import process_memory
from pretrain.models.features import ImageFeatures, TextFeatures
from pretrain.models.registry import ModelConfig, build_model
from pretrain.objectives.caft import CaftConfig, CaftObjective
from pretrain.ops.recompute import set_recompute
from recaption.common.config import UserError, load_config, print_json, run_command
from tests.pretrain import plain
from tools.make_scenes import make_scene
from tools.memory import peak_tensor_bytes

#: Ranks whose texts an image meets, where pooling and loss are measured alone.
NUM_RANKS = {"pooling and loss": 1, "with texts of 8 ranks": 8}
PARTS = ("step", "image tower", "text tower", *NUM_RANKS)
WAYS = ("plain", "fast")


@dataclass
class BenchConfig:
    """What is measured; the default model is CAFT-B."""

    model: ModelConfig = field(default_factory=ModelConfig)
    objective: CaftConfig = field(default_factory=CaftConfig)
    captions: str = ""  # folder of .jsonl files with a `caption` a line; empty: those of scenes
    batch_size: int = 8  # images a step
    pooling_batch_size: int = 64  # images where pooling and loss are measured alone
    num_turns: int = 3  # times that each way is timed
    num_threads: int = 0  # 0: as many as torch chooses
    recompute_blocks: bool = False  # as train.recompute_blocks, of the fast way
    parts: list[str] = field(default_factory=lambda: list(PARTS))  # what to measure


@dataclass
class Work:
    """One thing to be computed in both ways; each returns a loss whose gradients are taken."""

    plain: Callable[[], Tensor]
    fast: Callable[[], Tensor]
    leaves: Sequence[Tensor]  # whose gradients are taken away in between

    def run(self, way: str) -> tuple[float, float]:
        """(seconds, loss) of a forward and a backward pass."""
        for leaf in self.leaves:
            leaf.grad = None
        started = time.perf_counter()
        loss: Tensor = getattr(self, way)()
        loss.backward()
        return time.perf_counter() - started, loss.item()


def main(argv: list[str]) -> None:
    config = load_config(BenchConfig, argv, __doc__)
    unknown = sorted(set(config.parts) - set(PARTS))
    if unknown:
        raise UserError(f"no part {unknown[0]!r}: choose among {', '.join(PARTS)}")
    result = {name: measure(config, name) for name in config.parts}
    print_json(argv, {"parts": result, "num_threads": torch.get_num_threads()})


def measure(config: BenchConfig, part: str) -> dict[str, Any]:
    """Times and memory of one part in both ways, and how far their losses are apart."""
    memory = {
        way: {
            "tensors_mib": _in_fresh_process(_tensor_memory, config, part, way),
            "process_mib": _in_fresh_process(_process_memory, config, part, way),
        }
        for way in WAYS
    }
    work = build_work(config, part)
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    losses: dict[str, float] = {}
    for way in WAYS:  # once unmeasured: memory is allocated, kernels are chosen
        _, losses[way] = work.run(way)
    for _ in range(config.num_turns):
        for way in WAYS:
            seconds[way].append(work.run(way)[0])
    pairs = zip(seconds["plain"], seconds["fast"], strict=True)
    result: dict[str, Any] = {
        "seconds": {way: statistics.median(seconds[way]) for way in WAYS},
        "speedup": statistics.median(plain / fast for plain, fast in pairs),
        **{key: {way: memory[way][key] for way in WAYS} for key in memory["plain"]},
        "loss": losses,
    }
    result["memory_ratio"] = memory["fast"]["tensors_mib"] / memory["plain"]["tensors_mib"]
    print(
        f"{part:21} {result['seconds']['plain']:7.3f} s plain {result['seconds']['fast']:7.3f} s "
        f"fast: {result['speedup']:.2f} times as fast; tensors "
        f"{memory['plain']['tensors_mib']:.0f} -> {memory['fast']['tensors_mib']:.0f} MiB "
        f"({result['memory_ratio']:.2f}), process {memory['plain']['process_mib']:.0f} -> "
        f"{memory['fast']['process_mib']:.0f} MiB; "
        f"loss {losses['plain']:.6f} and {losses['fast']:.6f}",
        flush=True,
    )
    return result


def build_work(config: BenchConfig, part: str) -> Work:
    """The same weights and inputs for both ways, from fixed seeds."""
    if config.num_threads:
        torch.set_num_threads(config.num_threads)
    torch.manual_seed(0)
    if part in NUM_RANKS:
        return _pooling_and_loss(config, NUM_RANKS[part])
    model = build_model(config.model).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # the same numbers both ways
    set_recompute(model, config.recompute_blocks)
    parameters = [p for p in model.parameters() if p.requires_grad]
    images = _images(config)
    packed, padded = _texts(config)
    if part == "image tower":
        shapes = model.image(images[:1].repeat(2, 1, 1, 1))
        cotangents = shapes.map(lambda t: torch.randn(config.batch_size, *t.shape[1:]))
        return Work(
            lambda: _weighted(plain.plain_image(model.image, images), cotangents),
            lambda: _weighted(model.image(images), cotangents),
            parameters,
        )
    if part == "text tower":
        with torch.no_grad():
            cotangents_of_text = model.encode_text(packed).map(torch.randn_like)
        return Work(
            lambda: _weighted(plain.plain_text(model, padded), cotangents_of_text),
            lambda: _weighted(model.encode_text(packed), cotangents_of_text),
            parameters,
        )
    objective = CaftObjective(config.objective, config.model.embed_dim)
    with_tokens = "image.tokens" in objective.needs
    drawn = torch.randint(packed.num_texts_per_image, (config.batch_size, config.batch_size))

    def fast() -> Tensor:
        image = model.encode_image(images, with_tokens=with_tokens)
        text = model.encode_text(packed)
        return _sum(objective.sigmoid_terms(image, text, Exchange(), drawn))

    return Work(
        lambda: plain.plain_loss(model, objective, images, padded, drawn),
        fast,
        [*parameters, *objective.parameters()],
    )


def _pooling_and_loss(config: BenchConfig, num_ranks: int) -> Work:
    batch, width = config.pooling_batch_size, config.model.embed_dim
    num_tokens = config.model.image.hierarchical.num_clusters[0]
    num_texts = 8
    objective = CaftObjective(config.objective, width)
    leaves = [
        torch.randn(batch, *shape, width).requires_grad_()
        for shape in ((), (), (num_tokens,), (), (num_texts,))
    ]
    image = ImageFeatures(leaves[0], fine_pooled=leaves[1], fine_tokens=leaves[2])
    text = TextFeatures(leaves[3], leaves[4])
    drawn = torch.randint(num_texts, (batch, batch))
    return Work(
        lambda: plain.plain_objective(objective, image, text, drawn, num_ranks),
        lambda: _sum(objective.sigmoid_terms(image, text, _Ranks(num_ranks), drawn)),
        [*leaves, *objective.parameters()],
    )


class _Ranks(Exchange):
    """The ring of several ranks, in one process; see `plain_objective` for the others' texts."""

    def __init__(self, num_ranks: int) -> None:
        super().__init__()
        self._num_ranks = num_ranks

    def ring(self, *tensors: Tensor) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
        for rank in range(self._num_ranks):
            yield rank, tuple(x.detach().roll(rank, dims=0) for x in tensors)

    def homeward(self, combine: Callable[..., Tensor] = torch.add) -> Homeward:
        return _HomeFromRanks(self, combine)


class _HomeFromRanks(Homeward):
    """Gradients of texts in another order are those of the texts themselves."""

    _num_added = 0

    def add(self, part: Tensor) -> None:
        part = part.roll(-self._num_added, dims=0)
        self._sent = part if self._sent is None else self._combine(self._sent, part)
        self._num_added += 1


def _images(config: BenchConfig) -> Tensor:
    """(B, 3, size, size) of drawn scenes, normalised."""
    size = config.model.image.size
    transform = evaluation_transform(TransformConfig(), size)
    scenes = [make_scene(0, "bench", i, 112).image() for i in range(config.batch_size)]
    return normalise(torch.stack([transform(scene) for scene in scenes]))


def _texts(config: BenchConfig) -> tuple[PackedTexts, Tensor]:
    """K texts an image as in training: packed, and padded to the context length (B, K, L)."""
    captions = _captions(config)
    rng = Random(0)
    parts = CaptionsConfig()
    texts = [
        sample_texts({"long": split_caption(c), "other": split_caption(o)}, parts, rng)
        for c, o in zip(captions[::2], captions[1::2], strict=True)
    ]
    length = config.model.text.part.context_length
    tokenizer = Tokenizer(length)
    padded = torch.zeros(len(texts), len(texts[0]), length, dtype=torch.int64)
    for image, row in enumerate(texts):
        for place, text in enumerate(row):
            tokens = tokenizer.encode(text)
            padded[image, place, : len(tokens)] = torch.tensor(tokens)
    return tokenizer.pack(texts), padded


def _captions(config: BenchConfig) -> list[str]:
    """Two captions an image."""
    number = 2 * config.batch_size
    if not config.captions:
        return [make_scene(0, "bench", index, 112).caption for index in range(number)]
    lines: list[str] = []
    for path in sorted(Path(config.captions).glob("*.jsonl")):
        lines += [json.loads(line)["caption"] for line in path.read_text().splitlines()]
    if len(lines) < number:
        raise UserError(f"{config.captions} holds {len(lines)} captions, {number} are needed")
    return Random(0).sample(lines, number)


def _in_fresh_process(
    measure: Callable[[Work, str], int], config: BenchConfig, part: str, way: str
) -> float:
    """MiB."""
    os.environ["KINETO_LOG_LEVEL"] = "99"  # torch's profiler mourns the absence of a GPU
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_memory, args=(sender, measure, config, part, way))
    process.start()
    sender.close()
    memory: int = receiver.recv()
    process.join()
    return memory / 2**20


def _send_memory(
    sender: Any, measure: Callable[[Work, str], int], config: BenchConfig, part: str, way: str
) -> None:
    sender.send(measure(build_work(config, part), way))


def _process_memory(work: Work, way: str) -> int:
    work.run(way)
    # Not getrusage's figure: a child's begins with that of its parent.
    return process_memory()["peak"]


def _tensor_memory(work: Work, way: str) -> int:
    """The most bytes in tensors at any moment of a forward and a backward.

    Trained weights are included; frozen ones and buffers, the same in both ways, are not.
    """
    added = peak_tensor_bytes(lambda: work.run(way))
    return added + sum(leaf.numel() * leaf.element_size() for leaf in work.leaves)


def _weighted(features: Any, cotangents: Any) -> Tensor:
    given, expected = dict(features), dict(cotangents)
    return torch.stack([(given[name] * expected[name]).sum() for name in expected]).sum()


def _sum(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
