"""Evaluates a model on published benchmarks: `results.json`, a table, a page to look at."""

import json
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

from pretrain.evaluate.benchmarks.base import LayoutError, Options, Picture
from pretrain.evaluate.benchmarks.page import write_page
from pretrain.evaluate.benchmarks.published import published
from pretrain.evaluate.benchmarks.registry import (
    BENCHMARKS,
    Benchmark,
    find_benchmark,
    find_variant,
)
from pretrain.evaluate.benchmarks.table import format_results, headline
from pretrain.evaluate.config import EvaluateConfig
from pretrain.evaluate.encoders import Encoders, NoMapsError
from pretrain.evaluate.loading import load_encoders, output_folder
from pretrain.evaluate.provenance import describe_code
from pretrain.evaluate.sharing import is_first, shared_by_ranks
from recaption.common.config import ConfigError, print_json, write_config
from recaption.common.files import atomic_write, sha256_file

RESULTS = "results.json"
_NUM_CHECKSUMS = 8  # annotation files with a checksum each; more have one together


def run_benchmarks(config: EvaluateConfig, argv: list[str]) -> None:
    """Every benchmark that is asked for; results are written after each.

    On several ranks (torchrun, srun) all of them make this call, and the first writes.
    """
    with shared_by_ranks():
        _run(config, argv)


def _run(config: EvaluateConfig, argv: list[str]) -> None:
    chosen = choose(config)
    output = output_folder(config)
    # Roots are read first: a wrong layout is told before a model is loaded, or others are scored.
    read = {benchmark.name: read_benchmark(benchmark, root, config) for benchmark, root in chosen}
    encoders = load_encoders(config)
    if not is_first():
        for benchmark, _ in chosen:
            if benchmark.is_shared:
                benchmark.evaluate(read[benchmark.name][1], encoders, config.batch_size)
        return
    output.mkdir(parents=True, exist_ok=True)
    write_config(config, output / "benchmarks.yaml")
    results: dict[str, Any] = {
        "model": {"name": encoders.name, **encoders.describe()},
        "code": describe_code(),
        "batch_size": config.batch_size,
        "benchmarks": {},
        "left_out": {},  # what the model has no answers for, and why
    }
    for benchmark, _ in chosen:
        variant, data = read[benchmark.name]
        try:
            result = evaluate(benchmark, variant, data, encoders, config.batch_size)
        except NoMapsError as error:
            if len(chosen) == 1:
                raise
            print(f"warning: {benchmark.title} is left out: {error}", file=sys.stderr)
            results["left_out"][benchmark.name] = str(error)
        else:
            results["benchmarks"][benchmark.name] = result
        with atomic_write(output / RESULTS) as path:
            path.write_text(json.dumps(results, indent=2) + "\n")
    print(format_results(results))
    roots = {benchmark.name: root for benchmark, root in chosen}
    page = write_page(results, roots, output, config.num_pictures) if config.report else None
    print(f"\nwritten: {output / RESULTS}" + (f", {page}" if page else ""))
    written = {"results": str(output / RESULTS), "report": str(page) if page else None}
    figures = {name: headline(result) for name, result in results["benchmarks"].items()}
    print_json(argv, {"benchmarks": figures} | written)


def choose(config: EvaluateConfig) -> list[tuple[Benchmark[Any], Path]]:
    """The benchmarks asked for, with their roots.

    Raises:
        ConfigError: an unknown name, or one without a root.
    """
    for name in (*config.roots, *config.variants):
        find_benchmark(name)
    if config.benchmark == "all":
        if config.root:
            raise ConfigError("benchmark=all takes roots={NAME: FOLDER, ...}, not root")
        if not config.roots:
            raise ConfigError("benchmark=all runs those whose folders stand in roots: give some")
        return [
            (b, Path(config.roots[b.name])) for b in BENCHMARKS.values() if b.name in config.roots
        ]
    names = [name.strip() for name in config.benchmark.split(",")]
    if config.root and len(names) > 1:
        raise ConfigError("root is for one benchmark: give roots={NAME: FOLDER, ...}")
    chosen = []
    for benchmark in map(find_benchmark, dict.fromkeys(names)):
        root = config.root or config.roots.get(benchmark.name)
        if not root:
            raise ConfigError(f"benchmark={benchmark.name} needs root=FOLDER with its files")
        chosen.append((benchmark, Path(root)))
    return chosen


def read_benchmark(
    benchmark: Benchmark[Any], root: Path, config: EvaluateConfig
) -> tuple[str, Any]:
    """The variant's name, and what the reader of the layout returns."""
    wanted = config.variants.get(benchmark.name, config.variant)
    variant = find_variant(benchmark, wanted)
    if not root.is_dir():
        raise LayoutError(f"{benchmark.name}: root={root} is no folder")
    return variant, benchmark.read(root, Options(variant, config.allow_missing))


def evaluate(
    benchmark: Benchmark[Any], variant: str, data: Any, encoders: Encoders, batch_size: int
) -> dict[str, Any]:
    """Figures of one benchmark, and what they were made from."""
    started = time.monotonic()
    figures = benchmark.evaluate(data, encoders, batch_size)
    coverage = data.coverage
    images: list[Picture] = list(data.images)
    return {
        "title": benchmark.title,
        "variant": variant,
        "protocol": benchmark.variants[variant],
        "coverage": {
            "num_expected": coverage.num_expected,
            "num_samples": len(images),
            "share": len(images) / coverage.num_expected,
            "num_missing": len(coverage.missing),
            "missing": list(coverage.missing)[:100],
            "notes": dict(coverage.notes),
        },
        "figures": figures,
        "published": published(benchmark.name, variant),
        "inputs": {"files": _checksums(coverage.inputs), "pictures": _describe_pictures(images)},
        "seconds": round(time.monotonic() - started, 1),
    }


def _checksums(paths: Any) -> dict[str, str]:
    """SHA-256 of each file, or of the list of all checksums where there are many."""
    if len(paths) <= _NUM_CHECKSUMS:
        return {path.name: sha256_file(path) for path in paths}
    lines = [f"{sha256_file(path)}  {path.name}\n" for path in paths]
    return {f"{len(paths)} files, sha256 of their `sha256sum`": _sha256("".join(lines))}


def _describe_pictures(pictures: list[Picture]) -> dict[str, Any]:
    """Number, bytes and a hash of names and sizes: their content is not hashed."""
    sizes = {picture.name: picture.path.stat().st_size for picture in pictures}
    lines = [f"{size}  {name}\n" for name, size in sizes.items()]
    return {
        "num_files": len(sizes),
        "num_bytes": sum(sizes.values()),
        "sha256_of_sizes_and_names": _sha256("".join(lines)),
    }


def _sha256(text: str) -> str:
    return sha256(text.encode()).hexdigest()
