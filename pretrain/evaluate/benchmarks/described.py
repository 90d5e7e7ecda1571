"""What the figures of a benchmark are made from: for `results.json`, and to tell others apart."""

import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from pretrain.evaluate.benchmarks.base import ClassificationSet, Coverage, Picture
from pretrain.evaluate.benchmarks.dense import SegmentationSet
from pretrain.evaluate.benchmarks.published import caveat, published
from pretrain.evaluate.benchmarks.registry import Benchmark
from recaption.common.files import sha256_file

_NUM_CHECKSUMS = 8  # annotation files with a checksum each; more have one together


def describe(benchmark: Benchmark[Any], variant: str, data: Any) -> dict[str, Any]:
    """What the figures of one benchmark are made from, and what stands beside them."""
    coverage: Coverage = data.coverage
    images: list[Picture] = list(data.images)
    num_samples = len(images) if coverage.num_found is None else coverage.num_found
    of_texts = {}
    if coverage.num_texts_expected is not None:
        of_texts = {
            "num_texts": coverage.num_texts,
            "num_texts_expected": coverage.num_texts_expected,
        }
    root = images[0].root
    inputs: dict[str, Any] = {
        "files": _checksums(root, coverage.inputs),
        "pictures": _describe_files(root, [image.path for image in images]),
    }
    if isinstance(data, SegmentationSet):
        inputs["labels"] = _describe_files(root, [label.path for label in data.labels])
    if isinstance(data, ClassificationSet):
        inputs["class_of_image"] = _describe_lines(list(map(str, data.labels)))
    if isinstance(data, ClassificationSet | SegmentationSet):
        # They come from installed libraries, whose next versions may have others.
        inputs["classes"] = _describe_lines(data.classes)
        inputs["templates"] = _describe_lines(data.templates)
    return {
        "title": benchmark.title,
        "variant": variant,
        "protocol": benchmark.variants[variant],
        "coverage": {
            "num_expected": coverage.num_expected,
            "num_samples": num_samples,
            **of_texts,
            "share": _share(num_samples, coverage),
            "num_missing": len(coverage.missing),
            "missing": list(coverage.missing)[:100],
            "notes": dict(coverage.notes),
        },
        "published": published(benchmark.name, variant),
        "caveat": caveat(benchmark.name, variant),
        "inputs": inputs,
    }


def _share(num_samples: int, coverage: Coverage) -> float | None:
    """How much of the protocol is there, of samples or of texts, whichever is less; None: unknown.

    Of all images with a few texts each it is a small part that is scored.
    """
    if coverage.num_expected is None:
        return None
    shares = [num_samples / coverage.num_expected]
    if coverage.num_texts is not None and coverage.num_texts_expected is not None:
        shares.append(coverage.num_texts / coverage.num_texts_expected)
    return min(shares)


def _checksums(root: Path, paths: Sequence[Path]) -> dict[str, str]:
    """SHA-256 of each file below the root, or of the list of all checksums where there are many."""
    sums = [(sha256_file(path), _name(path, root)) for path in paths]
    if len(sums) <= _NUM_CHECKSUMS:
        return {name: checksum for checksum, name in sums}
    lines = [f"{checksum}  {name}\n" for checksum, name in sums]
    return {f"{len(sums)} files, sha256 of their `sha256sum`": _sha256(os.fsencode("".join(lines)))}


def _describe_files(root: Path, paths: Sequence[Path]) -> dict[str, Any]:
    """Number, bytes and a hash of names and sizes: their content is not hashed."""
    sizes = {_name(path, root): path.stat().st_size for path in paths}
    lines = [f"{size}  {name}\n" for name, size in sizes.items()]
    return {
        "num_files": len(sizes),
        "num_bytes": sum(sizes.values()),
        "sha256_of_sizes_and_names": _sha256(os.fsencode("".join(lines))),
    }


def _describe_lines(lines: Sequence[str]) -> dict[str, Any]:
    text = "".join(f"{line}\n" for line in lines)
    return {"number": len(lines), "sha256_of_lines": _sha256(text.encode(errors="surrogatepass"))}


def _name(path: Path, root: Path) -> str:
    """From the root on, also of a file that an annotation puts elsewhere; maybe no UTF-8."""
    return os.path.relpath(path, root)


def _sha256(content: bytes) -> str:
    return sha256(content).hexdigest()
