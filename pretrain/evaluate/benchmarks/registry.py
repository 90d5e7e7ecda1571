"""The benchmarks by name: who reads their files, and what is done with what was read.

One line adds one: the reader of its layout, and the task, which is a function of the set that the
reader returns, the encoders and a batch size, and returns figures as plain values. Several ranks
make that call together: the task shares the work, and gives the first of them the figures.
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
from pretrain.evaluate.benchmarks.base import JointSet, Options, RetrievalSet
from pretrain.evaluate.benchmarks.vision import VISION
from pretrain.evaluate.encoders import Encoders
from pretrain.evaluate.joint_task import evaluate as joint
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


def _retrieval(name: str, title: str, layout: Any) -> Benchmark[Any]:
    return Benchmark(name, title, layout.VARIANTS, layout.read, _retrieve)


def _retrieve(data: RetrievalSet, encoders: Encoders, batch_size: int) -> dict[str, Any]:
    task = joint if isinstance(data, JointSet) else retrieval
    return task(data, encoders, batch_size)  # type: ignore[arg-type]


_ALL: tuple[Benchmark[Any], ...] = (
    _retrieval("dci", "DCI", dci),
    _retrieval("docci", "DOCCI", docci),
    _retrieval("sharegpt4v", "ShareGPT4V", sharegpt4v),
    _retrieval("urban1k", "Urban1k", urban1k),
    _retrieval("iiw", "IIW", iiw),
    _retrieval("coco", "COCO", coco),
    _retrieval("flickr30k", "Flickr30k", flickr30k),
    *(Benchmark(*entry) for entry in VISION),
)
BENCHMARKS: dict[str, Benchmark[Any]] = {benchmark.name: benchmark for benchmark in _ALL}


def find_benchmark(name: str) -> Benchmark[Any]:
    """Raises: ConfigError: there is none of that name."""
    if name == "all":
        raise ConfigError("benchmark=all stands alone: it runs those whose folders are in roots")
    if name not in BENCHMARKS:
        near = nearest_name(name.lower(), BENCHMARKS)
        meant = f"did you mean {near}? " if near else ""
        raise ConfigError(f"benchmark={name}: {meant}There are {', '.join(BENCHMARKS)}, and all")
    return BENCHMARKS[name]


def find_variants(benchmark: Benchmark[Any], wanted: object) -> list[str]:
    """Names of variants, without repetitions; the usual one if nothing is wanted.

    Args:
        wanted: a name, several joined by commas, a list of them, or `every`; `all` is the same
            where it is no variant's own name, as COCO's.

    Raises:
        ConfigError: there is none of that name.
    """
    names = wanted if isinstance(wanted, list) else str(wanted).split(",")
    found: dict[str, None] = {}
    for name in (str(name).strip() for name in names):
        if name in benchmark.variants:
            found[name] = None
        elif name in ("every", "all"):
            found |= dict.fromkeys(benchmark.variants)
        elif name:
            known = ", ".join(benchmark.variants)
            raise ConfigError(
                f"{benchmark.name} has no variant {name!r}: choose among {known}, or every"
                if any(benchmark.variants)
                else f"{benchmark.name} has no variant {name!r}, nor any other"
            )
    return list(found) or [_usual(benchmark)]


def key_of(benchmark: Benchmark[Any], variant: str) -> str:
    """What figures stand under: `refcoco` for the usual variant, `refcoco:testA` for others."""
    return benchmark.name if variant == _usual(benchmark) else f"{benchmark.name}:{variant}"


def key_of_result(key: str, result: Mapping[str, Any]) -> str:
    """The same of a result that may stand under the name of its benchmark alone."""
    benchmark = BENCHMARKS.get(key)
    is_known = benchmark is not None and result["variant"] in benchmark.variants
    return key_of(benchmark, result["variant"]) if benchmark and is_known else key


def place_of_key(key: str) -> int:
    """Where a result stands among others: as in the registry, what it does not know behind."""
    keys = [key_of(b, variant) for b in BENCHMARKS.values() for variant in b.variants]
    return keys.index(key) if key in keys else len(keys)


def _usual(benchmark: Benchmark[Any]) -> str:
    return next(iter(benchmark.variants))
