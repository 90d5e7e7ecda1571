"""What is evaluated: a folder of MDS shards, or published benchmarks in their own layouts."""

from dataclasses import dataclass, field, fields
from typing import Any

from recaption.common.config import ConfigError, check_at_least, check_share, load_config

USAGE = """usage: python -m pretrain evaluate [CONFIG.yaml ...] [key=value ...] [--json]

data=FOLDER evaluates on MDS shards; benchmark=NAME root=FOLDER on a published benchmark, and
benchmark=all on every one whose folder stands under `roots`. docs/evaluation.md and
docs/evaluation_vision.md have the layouts."""

#: Keys that only one of the two kinds of evaluation reads.
_OF_SHARDS = ("num_samples", "source")
_OF_BENCHMARKS = (
    *("root", "roots", "variant", "variants", "allow_missing"),
    *("model", "tag", "compare", "name", "num_candidates"),
)


@dataclass
class EvaluateConfig:
    checkpoint: str = "???"  # a run (its newest complete checkpoint), a checkpoint or a release
    ema: bool = False  # the running mean of a run's weights instead of the weights
    data: str = ""  # folder of MDS shards
    benchmark: str = ""  # instead of data: a benchmark's name, several joined by commas, or all
    root: str = ""  # folder with the benchmark's files, in the layout that its authors publish
    # the same for several benchmarks: {docci: FOLDER, coco: FOLDER}
    roots: dict[str, str] = field(default_factory=dict)
    # a published variant of the benchmark, several joined by commas, or every; empty: the usual one
    variant: Any = ""
    # the same for several benchmarks: {dci: "1999", refcoco: [val, testA], sharegpt4v: every}
    variants: dict[str, Any] = field(default_factory=dict)
    allow_missing: bool = False  # go on with the part of a benchmark that is there
    # what the checkpoint is; empty: Canopy's own. open_clip:ViT-B-32 or open_clip:FILE.json (its
    # configuration, or FOLDER/open_clip_config.json) with checkpoint=WEIGHTS (.safetensors, or what
    # torch.load reads without code)
    model: str = ""
    # a model of open_clip by name: its published weights (openai) whose preparation of pictures and
    # activation are used; none: open_clip's defaults; empty: what all of them agree on
    tag: str = ""
    # results.json of other models, or their folders: their rows stand beside, where they are of the
    # same variant and files
    compare: list[str] = field(default_factory=list)
    name: str = ""  # what the model is called in tables; empty: after its checkpoint
    output: str = ""  # folder for the results and report/; empty: the run's folder
    num_samples: int = 500  # the first so many samples of the set that have a caption
    source: str = ""  # which captions; empty: the longest of each sample
    batch_size: int = 50  # images, and texts, encoded at once; at most 256 images of a benchmark
    image_size: int | None = None  # side in pixels; null: the one trained on
    alpha: float | None = None  # CAFT: share of the local score; null: as the model was configured
    # CAFT: blend for the so many texts that the whole score ranks first for an image (16 as
    # published), the others are not found at all; null: blend for all
    num_candidates: int | None = None
    report: bool = True  # write report/report.html too
    num_pictures: int = 8  # images in each section of the report; at most 8 of a benchmark

    def __post_init__(self) -> None:
        least: dict[str, float] = {"num_samples": self.num_samples, "batch_size": self.batch_size}
        if self.num_candidates is not None:
            least["num_candidates"] = self.num_candidates
        check_at_least(1, least)
        check_at_least(0, {"num_pictures": self.num_pictures})
        if self.alpha is not None:
            check_share("alpha", self.alpha)


def _usage() -> str:
    # Imported late: the registry brings the libraries of every task.
    from pretrain.evaluate.benchmarks.registry import BENCHMARKS

    width = max(map(len, BENCHMARKS))
    lines = [f"  {b.name:<{width}}  {', '.join(b.variants)}".rstrip() for b in BENCHMARKS.values()]
    return "\n".join([USAGE, "", "Benchmarks and their variants, the usual one first:", *lines])


def read_arguments(argv: list[str]) -> EvaluateConfig:
    """Raises: ConfigError: neither `data` nor `benchmark`, both, or a key of the other kind."""
    config = load_config(EvaluateConfig, argv, _usage() if {"--help", "-h"} & {*argv} else None)
    if bool(config.data) == bool(config.benchmark):
        raise ConfigError(
            "give either data=FOLDER of MDS shards, or benchmark=NAME and root=FOLDER"
        )
    kind, others = ("data", _OF_BENCHMARKS) if config.data else ("benchmark", _OF_SHARDS)
    untouched = EvaluateConfig(checkpoint=config.checkpoint)
    for key in (f.name for f in fields(config) if f.name in others):
        if getattr(config, key) != getattr(untouched, key):
            raise ConfigError(f"{key} says nothing to an evaluation of {kind}=...: leave it out")
    return config
