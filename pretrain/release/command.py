"""The command: writes a release aside, proves that it opens and gives the same, then names it."""

import json
import re
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pretrain.checkpoint import (
    CONFIG,
    WEIGHTS,
    checkpoint_folder,
    complete_checkpoints,
    newest_checkpoint,
)
from pretrain.checksums import write_checksums
from pretrain.evaluate.benchmarks.results import RESULTS
from pretrain.evaluate.command import RESULT
from pretrain.inference import (
    RELEASE_CONFIG,
    RELEASE_TOKENIZER,
    InferenceModel,
    load_for_inference,
)
from pretrain.release.card import write_card
from pretrain.release.evaluation import Figures, matching_figures, not_numbers
from pretrain.release.facts import FACTS, Facts, Given, gather_facts
from pretrain.release.finite import check_finite
from pretrain.release.fresh import open_in_fresh_process
from pretrain.release.model import ReleasedModel
from pretrain.release.privacy import private_paths
from pretrain.release.replacing import check_replaceable, folder_in_place_of
from pretrain.release.sample import SAMPLES, write_samples
from pretrain.release.training_data import DATA_CARD, last_names, read_data_card
from pretrain.release_config import whole_tree
from recaption.common.config import ConfigError, UserError, load_config, print_json

USAGE = """usage: python -m pretrain release run=RUN [CONFIG.yaml ...] [key=value ...] [--json]

Writes RUN/releases/NAME, NAME such as CAFT-B-16-CC3M-s90M-b2K, which `pretrain.load` opens."""
CARD = "README.md"
EMA = "ema"


@dataclass
class ReleaseConfig:
    run: str = "???"  # folder of the run
    # folder of the release, replaced if it is one; empty: RUN/releases/NAME, replaced if it is one
    # of the same weights
    output: str = ""
    # whose weights: those of a complete checkpoint's step, or `ema` for the running mean of the
    # newest; null: the weights of the newest
    step: str | None = None
    ema: bool = False  # the running mean of the weights of `step` instead of the weights
    name: str = ""  # empty: after architecture, data, samples seen and images a step
    # For the name and the card, where the run does not know it; empty: what the run knows.
    data: str = ""  # what the training data are called, such as CC3M; empty: by their folder
    licence: str = ""  # licence of the weights, as the hub writes it: apache-2.0, cc-by-nc-4.0, ...
    hardware: str = ""  # what it was trained on, such as 8 x H100

    def __post_init__(self) -> None:
        if self.step is not None and self.step != EMA and not self.step.isdecimal():
            raise ConfigError(f"step={self.step}: it is a number of steps, or {EMA}")
        if Path(self.name).name != self.name:
            raise ConfigError(f"name={self.name}: it becomes a folder's name; leave out the slash")
        if self.name.startswith("."):
            raise ConfigError(f"name={self.name}: it becomes a folder that is not hidden")
        if self.licence and not re.fullmatch(r"[a-z0-9.+-]+", self.licence):
            raise ConfigError(
                f"licence={self.licence}: give it as the hub writes it, such as apache-2.0 or "
                "cc-by-nc-4.0 (small letters, digits, dots, hyphens); other where it has no name"
            )


def main(argv: list[str]) -> None:
    config = load_config(ReleaseConfig, argv, USAGE)
    released = release(config)
    output, facts = released.folder, released.facts
    print(f"released {facts.name} to {output}")
    print("it opens in a fresh process without the training libraries and gives the same outputs")
    measured = released.figures
    benchmarks = [*measured.benchmarks["benchmarks"]] if measured.benchmarks else []
    if measured.evaluation is None:
        print(f"evaluation figures: none, {measured.evaluation_note}")
    for name, tree in ((RESULT, measured.evaluation), (RESULTS, measured.benchmarks)):
        for figure in not_numbers(tree):
            print(f"warning: {name}: {figure} is not a number", file=sys.stderr)
    print(f"benchmark figures: {', '.join(benchmarks) or f'none, {measured.benchmarks_note}'}")
    told = {
        "release": str(output),
        "name": facts.name,
        "evaluated": measured.evaluation is not None,
        "benchmarks": benchmarks,
    }
    print_json(argv, told)


@dataclass
class Released:
    folder: Path
    facts: Facts
    figures: Figures


def release(config: ReleaseConfig) -> Released:
    """Writes the release folder.

    Raises:
        UserError: if the run has no such complete checkpoint, its weights are not finite, or the
            folder holds something else.
    """
    run = Path(config.run)
    if not (run / CONFIG).is_file():
        raise UserError(f"{run} is not a run: it holds no {CONFIG}")
    if config.output:
        check_replaceable(Path(config.output))  # before the work
    is_mean = config.ema or config.step == EMA
    step = None if config.step in (None, EMA) else int(str(config.step))
    inference = load_for_inference(_choose_checkpoint(run, step), ema=is_mean)
    check_finite(inference.state(), inference.weights, "the run diverged; choose another step=")
    given = Given(config.name, config.data, config.licence, config.hardware)
    facts = gather_facts(run, inference, given)
    output = Path(config.output or run / "releases" / facts.name).resolve()
    with folder_in_place_of(output, None if config.output else facts) as folder:
        figures = _write(run, inference, facts, folder)
        open_in_fresh_process(folder)
    return Released(output, facts, figures)


def _choose_checkpoint(run: Path, step: int | None) -> Path:
    if step is None:
        return newest_checkpoint(run)
    chosen, complete = checkpoint_folder(run, step), complete_checkpoints(run)
    if chosen not in complete:
        raise UserError(
            f"{run} has no complete checkpoint of step {step}; it has "
            f"{', '.join(folder.name for folder in complete) or 'none'}"
        )
    return chosen


def _write(run: Path, inference: InferenceModel, facts: Facts, folder: Path) -> Figures:
    """All files of a release; returns which figures are among them."""
    config = inference.config
    shutil.copyfile(inference.weights, folder / WEIGHTS)
    _write_json(folder / RELEASE_CONFIG, _without_folders(whole_tree(config)))
    inference.tokenizer.save(folder / RELEASE_TOKENIZER)
    write_samples(folder / SAMPLES, ReleasedModel(inference))
    data_card = read_data_card(config.data.train)
    if data_card is not None:
        _write_json(folder / DATA_CARD, data_card)
    figures = matching_figures(run, config, facts.weights)
    for name, tree in ((RESULT, figures.evaluation), (RESULTS, figures.benchmarks)):
        if tree is not None:
            _write_json(folder / name, tree)
    _write_json(folder / FACTS, asdict(facts))
    (folder / CARD).write_text(write_card(facts, config, figures))
    named = private_paths(folder)
    if named:
        raise UserError(f"the release would name a path of this machine: {named[0]}")
    write_checksums(folder)
    return figures


def _write_json(path: Path, tree: Any) -> None:
    path.write_text(json.dumps(tree, indent=2) + "\n")


def _without_folders(tree: Any) -> Any:
    """Only the names of what the run's configuration gives by path."""
    if isinstance(tree, dict):
        return {name: _without_folders(value) for name, value in tree.items()}
    return last_names(tree) if isinstance(tree, str) and "/" in tree else tree
