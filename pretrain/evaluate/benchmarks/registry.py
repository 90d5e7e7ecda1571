"""The benchmarks by name: who reads their files, and what is done with what was read.

One line adds one: the reader of its layout, and the task, which is a function of the set that the
reader returns, the encoders and a batch size, and returns figures as plain values.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pretrain.evaluate.benchmarks import (
    coco,
    dci,
    docci,
    flickr30k,
    iiw,
    sharegpt4v,
    urban1k,
)
from pretrain.evaluate.benchmarks.base import Options
from pretrain.evaluate.benchmarks.vision import VISION
from pretrain.evaluate.encoders import Encoders
from pretrain.evaluate.retrieval_task import evaluate as retrieval
from recaption.common.config import ConfigError, nearest_name

S = TypeVar("S")


@dataclass(frozen=True)
class Benchmark(Generic[S]):
    name: str  # as in benchmark=NAME
    title: str  # as in tables
    variants: Mapping[str, str]  # published variants and their protocols; the first is the usual
    read: Callable[[Path, Options], S]
    evaluate: Callable[[S, Encoders, int], dict[str, Any]]


_ALL: tuple[Benchmark[Any], ...] = (
    Benchmark("dci", "DCI", dci.VARIANTS, dci.read, retrieval),
    Benchmark("docci", "DOCCI", docci.VARIANTS, docci.read, retrieval),
    Benchmark("sharegpt4v", "ShareGPT4V", sharegpt4v.VARIANTS, sharegpt4v.read, retrieval),
    Benchmark("urban1k", "Urban1k", urban1k.VARIANTS, urban1k.read, retrieval),
    Benchmark("iiw", "IIW", iiw.VARIANTS, iiw.read, retrieval),
    Benchmark("coco", "COCO", coco.VARIANTS, coco.read, retrieval),
    Benchmark("flickr30k", "Flickr30k", flickr30k.VARIANTS, flickr30k.read, retrieval),
    *(Benchmark(*entry) for entry in VISION),
)
BENCHMARKS: dict[str, Benchmark[Any]] = {benchmark.name: benchmark for benchmark in _ALL}


def find_benchmark(name: str) -> Benchmark[Any]:
    """Raises: ConfigError: there is none of that name."""
    if name not in BENCHMARKS:
        near = nearest_name(name, BENCHMARKS)
        meant = f"did you mean {near}? " if near else ""
        raise ConfigError(f"benchmark={name}: {meant}There are {', '.join(BENCHMARKS)}, and all")
    return BENCHMARKS[name]


def find_variant(benchmark: Benchmark[Any], variant: str) -> str:
    """The variant's name, the usual one if `variant` is empty. Raises: ConfigError: unknown."""
    if not variant:
        return next(iter(benchmark.variants))
    if variant not in benchmark.variants:
        known = ", ".join(benchmark.variants)
        raise ConfigError(f"{benchmark.name} has no variant {variant!r}: choose among {known}")
    return variant
