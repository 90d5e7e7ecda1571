"""The command: writes a release aside, proves that it opens and gives the same, then names it."""

import copy
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from pretrain.checkpoint import (
    CONFIG,
    WEIGHTS,
    checkpoint_folder,
    complete_checkpoints,
    newest_checkpoint,
)
from pretrain.config import PretrainConfig
from pretrain.evaluate.command import RESULT
from pretrain.evaluate.provenance import describe_weights
from pretrain.inference import (
    RELEASE_CONFIG,
    RELEASE_TOKENIZER,
    InferenceModel,
    load_for_inference,
)
from pretrain.models.count import num_parameters
from pretrain.release.card import write_card
from pretrain.release.checksums import SUMS, write_checksums
from pretrain.release.model import ReleasedModel
from pretrain.release.sample import sample_outputs
from recaption.common.config import UserError, load_config, print_json, to_dict
from recaption.common.files import read_json

USAGE = "usage: python -m pretrain release [CONFIG.yaml ...] [key=value ...] [--json]"
CARD = "README.md"


@dataclass
class ReleaseConfig:
    run: str = "???"  # folder of the run
    output: str = "???"  # folder of the release; one that is there is replaced
    step: int | None = None  # checkpoint to release; null: the newest complete one
    ema: bool = False  # release the running mean of the weights instead of the weights
    name: str = ""  # name on the card; empty: that of the output folder


def main(argv: list[str]) -> None:
    config = load_config(ReleaseConfig, argv, USAGE)
    output = Path(config.output)
    name = config.name or output.resolve().name
    note = release(Path(config.run), config.step, output, name, config.ema)
    print(f"released to {output}: it opens in a fresh process and gives the same outputs")
    if note:
        print(f"evaluation figures: {note}")
    print_json(argv, {"release": str(output), "evaluated": not note})


def release(run: Path, step: int | None, output: Path, name: str, ema: bool = False) -> str:
    """Writes the release folder `output`; returns why it has no evaluation, or nothing.

    Raises:
        UserError: if the run has no such complete checkpoint, or `output` holds something else.
    """
    if not (run / CONFIG).is_file():
        raise UserError(f"{run} is not a run: it holds no {CONFIG}")
    inference = load_for_inference(_choose_checkpoint(run, step), ema=ema)
    is_free = not output.exists() or (output.is_dir() and not any(output.iterdir()))
    if not is_free and not (output / SUMS).is_file():
        raise UserError(f"{output} is there and is no release: give another folder")
    aside = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        note = _write(run, inference, aside, name)
        compare_outputs(outputs_elsewhere(aside), sample_outputs(ReleasedModel(inference)))
        if output.exists():
            shutil.rmtree(output)
        aside.rename(output)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return note


def outputs_elsewhere(folder: Path) -> dict[str, Tensor]:
    """The outputs of a release that a fresh process has opened, with its checksums compared.

    Raises:
        RuntimeError: if it does not open.
    """
    outputs = folder.with_name(f"{folder.name}.outputs")
    command = [sys.executable, "-m", "pretrain.release.sample", str(folder), str(outputs)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"the release does not open in a fresh process:\n{done.stderr}")
        return load_file(outputs)
    finally:
        outputs.unlink(missing_ok=True)


def compare_outputs(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Raises RuntimeError where the release gives something else than its checkpoint."""
    for name, tensor in expected.items():
        if not torch.allclose(found[name], tensor, rtol=1e-4, atol=1e-5):
            raise RuntimeError(
                f"the release gives another `{name}` than the checkpoint: they differ by up to "
                f"{(found[name] - tensor).abs().max().item():.2g}"
            )


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


def _write(run: Path, inference: InferenceModel, folder: Path, name: str) -> str:
    source = inference.source
    weights = describe_weights(inference.weights)
    shutil.copyfile(inference.weights, folder / WEIGHTS)
    config = inference.config
    (folder / RELEASE_CONFIG).write_text(json.dumps(to_dict(_named(config)), indent=2) + "\n")
    inference.tokenizer.save(folder / RELEASE_TOKENIZER)
    evaluation, note = _matching_evaluation(run, config, weights)
    if evaluation:
        (folder / RESULT).write_text(json.dumps(evaluation, indent=2) + "\n")
    state = source / "state.json"
    card = write_card(
        name,
        config,
        read_json(state) if state.is_file() else {},
        weights,
        sum(map(num_parameters, (inference.model, inference.objective))),
        evaluation,
        note,
    )
    (folder / CARD).write_text(card)
    write_checksums(folder)
    return note


def _named(config: PretrainConfig) -> PretrainConfig:
    """Without paths: where things lay is nobody's business elsewhere. Their names are kept."""
    named = copy.deepcopy(config)
    network = named.model.image.hierarchical.superpixels.spixelfcn
    named.run = Path(config.run).name
    named.data.train = Path(config.data.train).name
    network.weights = Path(network.weights).name
    return named


def _matching_evaluation(
    run: Path, config: PretrainConfig, weights: dict[str, Any]
) -> tuple[dict[str, Any] | None, str]:
    """The run's evaluation if it is one of these very weights, as trained; else None and why."""
    path = run / RESULT
    if not path.is_file():
        return None, "the run has not been evaluated"
    evaluation: dict[str, Any] = read_json(path)
    if evaluation["checkpoint"]["sha256"] != weights["sha256"]:
        other = evaluation["checkpoint"]["folder"]
        return None, f"the run was evaluated at another checkpoint ({other})"
    size = config.model.image.size
    if evaluation["image_size"] != size:
        return None, f"the run was evaluated on images of {evaluation['image_size']} px, not {size}"
    return evaluation, ""
