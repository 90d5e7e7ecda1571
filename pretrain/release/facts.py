"""What is known of a release: `release.json`, which its card and the list of models are made of.

None stands for what is not known.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from pretrain.checkpoint import EMA_WEIGHTS, STATE
from pretrain.code_history import read_code
from pretrain.config import PretrainConfig
from pretrain.evaluate.provenance import describe_code, describe_weights
from pretrain.inference import InferenceModel
from pretrain.metrics import METRICS, read_metrics
from pretrain.models.count import count_parameters
from pretrain.release.naming import architecture_name, data_name, release_name
from pretrain.release.training_data import TrainingData, describe_training_data
from recaption.common.files import read_json

FACTS = "release.json"


@dataclass
class Given:
    """What only whoever releases can know; empty where it was not told."""

    name: str = ""
    data: str = ""
    licence: str = ""
    hardware: str = ""


@dataclass
class Training:
    """How far and how the released weights were trained."""

    step: int | None
    num_samples_seen: int | None
    global_batch: int | None  # images a step, of all ranks
    num_ranks: int | None  # of the last steps
    hours: float | None  # wall time of the steps, without those that were done again
    hardware: str | None
    final_loss: float | None  # the last that was logged
    code: list[dict[str, Any]] = field(default_factory=list)  # by steps, as `read_code` tells


@dataclass
class Facts:
    name: str
    architecture: str
    objective: str
    image_size: int  # pixels
    embed_dim: int
    context_length: int  # tokens
    num_parameters: dict[str, int]  # by part, and `total`
    training: Training
    data: TrainingData
    weights: dict[str, Any]  # the file that they come from, as `describe_weights` tells
    is_mean: bool  # they are the running mean of the run's weights
    licence: str | None  # of the weights
    released_with: dict[str, Any] = field(default_factory=describe_code)


def gather_facts(run: Path, inference: InferenceModel, given: Given) -> Facts:
    """Reads them from the run's folder, and from that of its training shards if it is there."""
    config = inference.config
    training = _describe_training(run, inference.source, config, given.hardware or None)
    data = describe_training_data(
        config.data.train, given.data or data_name(config.data.train), config.data.num_samples
    )
    is_mean = inference.weights.name == EMA_WEIGHTS
    seen, batch = training.num_samples_seen, training.global_batch
    return Facts(
        name=given.name or release_name(config, data.name, seen, batch, is_mean),
        architecture=architecture_name(config),
        objective=config.objective.name,
        image_size=config.model.image.size,
        embed_dim=config.model.embed_dim,
        context_length=inference.tokenizer.context_length,
        num_parameters=count_parameters(inference.model, inference.objective),
        training=training,
        data=data,
        weights=describe_weights(inference.weights),
        is_mean=is_mean,
        licence=given.licence or None,
    )


def _describe_training(
    run: Path, checkpoint: Path, config: PretrainConfig, hardware: str | None
) -> Training:
    """An imported checkpoint has no state: nothing is known of its training."""
    if not (checkpoint / STATE).is_file():
        return Training(None, None, None, None, None, hardware, None)
    state = read_json(checkpoint / STATE)
    step, seen = state["step"], state["num_samples_seen"]
    batch = state.get("global_batch") or (round(seen / step) if step else None)
    rows = [row for row in read_metrics(run / METRICS) if row["step"] <= step]
    return Training(
        step=step,
        num_samples_seen=seen,
        global_batch=batch,
        num_ranks=state.get("num_ranks"),
        hours=_hours(rows, step, batch, config),
        hardware=hardware,
        final_loss=rows[-1].get("loss") if rows else None,
        code=[part for part in read_code(run) if part["after_step"] < step],
    )


def _hours(
    rows: list[dict[str, Any]], step: int, global_batch: int | None, config: PretrainConfig
) -> float | None:
    """By the rate of each window of steps: what was done twice after a stop counts once.

    None where rows are missing at either end: a run that began from another's checkpoint has none
    of the steps before.
    """
    if not rows or config.train.begin_from:
        return None
    if max(rows[0]["step"], step - rows[-1]["step"]) > config.train.log_every:
        return None
    seconds = 0.0
    for before, row in pairwise([{"step": 0}, *rows]):
        rate = row.get("samples_per_second")
        if not rate or not global_batch:
            return None
        seconds += (row["step"] - before["step"]) * global_batch / rate
    return seconds / 3600 if seconds else None
