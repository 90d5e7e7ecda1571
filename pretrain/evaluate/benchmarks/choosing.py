"""Which benchmarks and variants a command is about, where their files are, and what is in them."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from pretrain.evaluate.benchmarks.base import LayoutError, Options
from pretrain.evaluate.benchmarks.described import describe
from pretrain.evaluate.benchmarks.registry import (
    BENCHMARKS,
    Benchmark,
    find_benchmark,
    find_variants,
    key_of,
)
from pretrain.evaluate.benchmarks.table import is_whole
from pretrain.evaluate.config import EvaluateConfig
from pretrain.evaluate.open_clip_architectures import PREFIX
from recaption.common.config import ConfigError, UserError, from_dict, write_config

#: What results are made from, in a form that makes them again: `evaluate FOLDER/benchmarks.yaml`.
CHOSEN = "benchmarks.yaml"


@dataclass(frozen=True)
class Chosen:
    """One variant of a benchmark, in a folder."""

    benchmark: Benchmark[Any]
    variant: str
    root: Path

    @property
    def key(self) -> str:
        return key_of(self.benchmark, self.variant)

    @property
    def title(self) -> str:
        return f"{self.benchmark.title} {self.variant}".strip()

    def read(self, allow_missing: bool) -> Any:
        """What the reader of the layout returns. Raises: LayoutError: as it does."""
        if not self.root.is_dir():
            raise LayoutError(f"{self.benchmark.name}: root={self.root} is no folder")
        return self.benchmark.read(self.root, Options(self.variant, allow_missing))

    def describe(self, data: Any) -> dict[str, Any]:
        return describe(self.benchmark, self.variant, data)


def choose(config: EvaluateConfig) -> list[Chosen]:
    """What is asked for, in the order of the names, and of the variants of each.

    Raises:
        ConfigError: an unknown name or variant, or a benchmark without a root.
    """
    for name in config.roots:
        find_benchmark(name)
    for name, variants in config.variants.items():
        find_variants(find_benchmark(name), variants)
    return [
        Chosen(benchmark, variant, root)
        for benchmark, root in _with_roots(config)
        for variant in find_variants(benchmark, config.variants.get(benchmark.name, config.variant))
    ]


def _with_roots(config: EvaluateConfig) -> list[tuple[Benchmark[Any], Path]]:
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
    found = []
    for benchmark in map(find_benchmark, dict.fromkeys(names)):
        root = config.root or config.roots.get(benchmark.name)
        if not root:
            raise ConfigError(f"benchmark={benchmark.name} needs root=FOLDER with its files")
        found.append((benchmark, Path(root)))
    return found


def remember(config: EvaluateConfig, chosen: Sequence[Chosen], output: Path) -> EvaluateConfig:
    """Writes `benchmarks.yaml`, and returns what is in it: the configuration, with the roots and
    variants of earlier commands of this folder. Paths are absolute: it can be run from elsewhere.
    """
    path = output / CHOSEN
    before = _remembered(path)
    variants = {name: list(names) for name, names in before.variants.items()}
    for one in chosen:
        of_benchmark = variants.setdefault(one.benchmark.name, [])
        if one.variant not in of_benchmark:
            of_benchmark.append(one.variant)
    every = replace(
        config,
        checkpoint=_absolute(config.checkpoint),
        model=_absolute_model(config.model),
        output=config.output and _absolute(config.output),
        compare=[_absolute(path) for path in config.compare],
        benchmark="all",
        root="",
        roots=before.roots | {c.benchmark.name: str(c.root.absolute()) for c in chosen},
        variant="",
        variants=variants,
        allow_missing=config.allow_missing or before.allow_missing,
    )
    write_config(every, path)
    return every


def _absolute(path: str) -> str:
    return str(Path(path).absolute())


def _absolute_model(model: str) -> str:
    """`open_clip:FILE.json` is a path, `open_clip:ViT-B-32` a name."""
    if not (model.startswith(PREFIX) and model.endswith(".json")):
        return model
    return PREFIX + _absolute(model.removeprefix(PREFIX))


def _remembered(path: Path) -> EvaluateConfig:
    """What is in the file, variants as lists; it may be the user's own, with less in it."""
    try:
        tree = yaml.safe_load(path.read_text()) if path.exists() else {}
        found = from_dict(EvaluateConfig, {"checkpoint": "", **tree}, str(path))
        wanted = found.variants.items()
        variants = {name: find_variants(find_benchmark(name), which) for name, which in wanted}
        return replace(found, variants=variants)
    except (TypeError, UnicodeDecodeError, UserError, yaml.YAMLError) as error:
        first = str(error).splitlines()[0]
        print(f"warning: what stood in {path} is forgotten: {first}", file=sys.stderr)
        return EvaluateConfig(checkpoint="")


def read_again(
    results: Mapping[str, Any], known: Mapping[str, Any], remembered: EvaluateConfig
) -> dict[str, tuple[Path, Any]]:
    """Root and set of earlier commands' benchmarks whose pictures the page shows.

    What is no longer there, or no longer the same, is told on stderr: it has no pictures.

    Args:
        results: of all benchmarks, by key.
        known: keys that were read by this command.
        remembered: what `remember` returned.
    """
    sets: dict[str, tuple[Path, Any]] = {}
    for key, result in results.items():
        name = key.partition(":")[0]
        figures = result["figures"]
        has_pictures = "examples" in figures or "maps" in figures
        if key in known or name not in remembered.roots or not has_pictures:
            continue
        one = Chosen(BENCHMARKS[name], result["variant"], Path(remembered.roots[name]))
        try:
            data = one.read(allow_missing=not is_whole(result["coverage"]))
            if one.describe(data)["inputs"] != result["inputs"]:
                raise UserError(f"{one.root} holds other files than those that were scored")
        except (OSError, UserError) as error:
            print(f"warning: no pictures of {one.title} on the page: {error}", file=sys.stderr)
            continue
        sets[key] = (one.root, data)
    return sets
