"""Evaluates a model on published benchmarks: `results.json`, a table, a page to look at."""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from pretrain.evaluate.benchmarks.base import LayoutError, Options, Picture
from pretrain.evaluate.benchmarks.compared import alike, read_compared
from pretrain.evaluate.benchmarks.dense import SegmentationSet
from pretrain.evaluate.benchmarks.page import write_page
from pretrain.evaluate.benchmarks.published import caveat, published
from pretrain.evaluate.benchmarks.registry import (
    BENCHMARKS,
    Benchmark,
    find_benchmark,
    find_variant,
)
from pretrain.evaluate.benchmarks.results import Results
from pretrain.evaluate.benchmarks.table import Others, format_results, headline
from pretrain.evaluate.config import EvaluateConfig
from pretrain.evaluate.encoders import Encoders, NoMapsError
from pretrain.evaluate.loading import load_encoders, output_folder
from pretrain.evaluate.provenance import describe_code
from pretrain.evaluate.sharing import is_first, of_first, shared_by_ranks
from recaption.common.config import ConfigError, print_json, write_config
from recaption.common.files import sha256_file

_NUM_CHECKSUMS = 8  # annotation files with a checksum each; more have one together


def run_benchmarks(config: EvaluateConfig, argv: list[str]) -> None:
    """Every benchmark that is asked for; results are written after each.

    On several ranks (torchrun, srun) all of them make this call, and the first writes.
    """
    with shared_by_ranks():
        _run(config, argv)


def _run(config: EvaluateConfig, argv: list[str]) -> None:
    chosen = choose(config)
    compared = read_compared(config.compare)
    output = output_folder(config)
    # Roots are read first: a wrong layout is told before a model is loaded, or others are scored.
    read = {benchmark.name: read_benchmark(benchmark, root, config) for benchmark, root in chosen}
    encoders = load_encoders(config)
    if is_first():
        output.mkdir(parents=True, exist_ok=True)
        write_config(config, output / "benchmarks.yaml")
    header = {
        "model": {"name": encoders.name, **encoders.describe()},
        "code": describe_code(),
        "batch_size": config.batch_size,
    }
    results = Results(output, header) if is_first() else None
    for benchmark, _ in chosen:
        variant, data = read[benchmark.name]
        described = describe(benchmark, variant, data) if results else {}
        if of_first(results is not None and results.has(benchmark.name, described)):
            if results:
                print(f"{benchmark.title} was evaluated before: its figures are kept")
            continue
        started = time.monotonic()
        try:
            figures = benchmark.evaluate(data, encoders, config.batch_size)
        except NoMapsError as error:  # on all ranks alike
            if len(chosen) == 1:
                raise
            if results:
                print(f"warning: {benchmark.title} is left out: {error}", file=sys.stderr)
                results.leave_out(benchmark.name, str(error))
        else:
            if results:
                seconds = round(time.monotonic() - started, 1)
                results.put(benchmark.name, described | {"figures": figures, "seconds": seconds})
    if results:
        sets = {benchmark.name: (root, read[benchmark.name][1]) for benchmark, root in chosen}
        others = {n: alike(n, result, compared) for n, result in results.tree["benchmarks"].items()}
        _tell(results, others, sets, encoders, output, config, argv)


def _tell(
    results: Results,
    others: Mapping[str, Others],
    sets: dict[str, tuple[Path, Any]],
    encoders: Encoders,
    output: Path,
    config: EvaluateConfig,
    argv: list[str],
) -> None:
    """The table, and the page to look at."""
    tree = results.tree
    if results.moved:
        print(f"results of another model, code or batch size were there: now {results.moved}")
    print(format_results(tree, others))
    page = None
    if config.report:
        page = write_page(tree, others, sets, encoders, output, config.num_pictures)
    print(f"\nwritten: {results.path}" + (f", {page}" if page else ""))
    written = {"results": str(results.path), "report": str(page) if page else None}
    headlines = {name: headline(result) for name, result in tree["benchmarks"].items()}
    print_json(argv, {"benchmarks": headlines} | written)


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


def describe(benchmark: Benchmark[Any], variant: str, data: Any) -> dict[str, Any]:
    """What the figures of one benchmark are made from, and what stands beside them."""
    coverage = data.coverage
    images: list[Picture] = list(data.images)
    num_samples = len(images) if coverage.num_found is None else coverage.num_found
    root = images[0].root
    inputs: dict[str, Any] = {
        "files": _checksums(root, coverage.inputs),
        "pictures": _describe_files(root, [image.path for image in images]),
    }
    if isinstance(data, SegmentationSet):
        inputs["labels"] = _describe_files(root, [label.path for label in data.labels])
    return {
        "title": benchmark.title,
        "variant": variant,
        "protocol": benchmark.variants[variant],
        "coverage": {
            "num_expected": coverage.num_expected,
            "num_samples": num_samples,
            "share": num_samples / coverage.num_expected,
            "num_missing": len(coverage.missing),
            "missing": list(coverage.missing)[:100],
            "notes": dict(coverage.notes),
        },
        "published": published(benchmark.name, variant),
        "caveat": caveat(benchmark.name, variant),
        "inputs": inputs,
    }


def _checksums(root: Path, paths: Sequence[Path]) -> dict[str, str]:
    """SHA-256 of each file below the root, or of the list of all checksums where there are many."""
    sums = [(sha256_file(path), _name(path, root)) for path in paths]
    if len(sums) <= _NUM_CHECKSUMS:
        return {name: checksum for checksum, name in sums}
    lines = [f"{checksum}  {name}\n" for checksum, name in sums]
    return {f"{len(sums)} files, sha256 of their `sha256sum`": _sha256("".join(lines))}


def _describe_files(root: Path, paths: Sequence[Path]) -> dict[str, Any]:
    """Number, bytes and a hash of names and sizes: their content is not hashed."""
    sizes = {_name(path, root): path.stat().st_size for path in paths}
    lines = [f"{size}  {name}\n" for name, size in sizes.items()]
    return {
        "num_files": len(sizes),
        "num_bytes": sum(sizes.values()),
        "sha256_of_sizes_and_names": _sha256("".join(lines)),
    }


def _name(path: Path, root: Path) -> str:
    """From the root on, also of a file that an annotation puts elsewhere."""
    return os.path.relpath(path, root)


def _sha256(text: str) -> str:
    return sha256(text.encode()).hexdigest()
