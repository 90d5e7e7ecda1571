"""What a run costs: training FLOPs by one convention, and an estimate of its time.

Counted by ``pretrain plan``: two FLOPs a multiply-accumulate, three times the forward pass of the
encoders (one forward, two backward), superpixels, through which no gradient goes, once, and the
objective with its gradients as it is computed at this batch, spread over ranks in one way whatever
the number of ranks is: a row does not depend on it. What is computed again to save memory is left
out, but is in the times. FLOPs of a run are those of all its samples, the trunk that it shares
among them: what the run would have taken alone.
"""

import hashlib
import json
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from random import Random
from statistics import mean
from typing import Any

from pretrain.config import PretrainConfig
from pretrain.data.captions import sample_texts
from pretrain.data.shards import TrainingShards
from pretrain.data.tokens import Tokenizer
from pretrain.plan.accelerators import ACCELERATORS
from pretrain.plan.command import PlanConfig, count_flops_again, count_flops_per_sample
from pretrain.plan.step import count_forward_macs
from recaption.common.config import UserError, load_config, to_dict
from recaption.common.files import atomic_write, read_json
from tools.scaling_laws.ladder import LadderConfig, Rung, count_run_parameters

COSTS = "costs.json"
_NUM_TEXT_SAMPLES = 200  # whose texts are counted
_LARGEST_SHARE = 64  # images of a rank for which the objective is counted


@dataclass(frozen=True)
class ModelCost:
    """Of one image and its texts."""

    params_image: int
    params_text: int  # the token embedding included
    params: int  # N: of all parts, without the token embedding
    text_length: float  # tokens of a text, on average
    forward_macs: dict[str, int]  # by part of the encoders
    # of a training step, by part, and `total`; `again`: what comes on top to save memory
    flops: dict[str, float]

    @property
    def flops_per_sample(self) -> float:
        return self.flops["total"]

    @property
    def computed_flops_per_sample(self) -> float:
        """With what is computed twice: what takes the time."""
        return self.flops["total"] + self.flops["again"]


class Costs:
    """Costs of the models of a ladder, counted once and kept in ``OUTPUT/costs.json``."""

    def __init__(self, config: LadderConfig) -> None:
        self._config = config
        self._path = Path(config.output) / COSTS
        self._kept = _read_kept(self._path) if self._path.exists() else {}
        self._text_lengths: dict[str, float] = {}

    def of(self, rung: Rung) -> ModelCost:
        length = self._config.cost.text_length or self._mean_text_length(rung.config)
        decides = {
            "model": to_dict(rung.config.model),
            "objective": to_dict(rung.config.objective),
            "captions": to_dict(rung.config.data.captions),
            "batch": rung.batch,
            "text_length": length,
            "num_micro_batches": rung.config.engine.num_micro_batches,
            "recompute_blocks": rung.config.train.recompute_blocks,
        }
        key = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
        if key not in self._kept:
            self._kept[key] = asdict(count_cost(rung, length))
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._path) as path:
                path.write_text(json.dumps(self._kept, indent=1))
        return ModelCost(**self._kept[key])

    def _mean_text_length(self, config: PretrainConfig) -> float:
        key = json.dumps([to_dict(config.data.captions), config.model.text.part.context_length])
        if key not in self._text_lengths:
            self._text_lengths[key] = mean_text_length(config)
        return self._text_lengths[key]


def _read_kept(path: Path) -> dict[str, dict[str, Any]]:
    """What was counted before; nothing of a file that is damaged."""
    names = {field.name for field in fields(ModelCost)}
    try:
        kept: dict[str, dict[str, Any]] = read_json(path)
        if all(cost.keys() == names for cost in kept.values()):
            return kept
        reason = f"{path} holds costs of another kind"
    except UserError as error:
        reason = str(error)
    except AttributeError:
        reason = f"{path} holds no costs"
    print(f"warning: {reason}; they are counted again", file=sys.stderr)
    return {}


def count_cost(rung: Rung, text_length: float) -> ModelCost:
    """Counts on tensors without numbers: no data, no GPU."""
    length = max(1, round(text_length))
    of_a_rank = max(n for n in range(1, _LARGEST_SHARE + 1) if rung.batch % n == 0)
    spread = [f"data.batch_size={of_a_rank}", f"gpus={rung.batch // of_a_rank}"]
    words = [*rung.arguments, f"text_length={length}", *spread, "engine.num_micro_batches=1"]
    config = load_config(PlanConfig, words)
    params = count_run_parameters(config)
    return ModelCost(
        params_image=params["image"],
        params_text=params["text"],
        params=params["total"],
        text_length=text_length,
        forward_macs=count_forward_macs(config, length),
        flops=count_flops_per_sample(config) | {"again": count_flops_again(rung.config, length)},
    )


def mean_text_length(config: PretrainConfig) -> float:
    """Tokens of a text, on average over the first samples of the shards, as training cuts them."""
    shards = TrainingShards(config.data.train)
    tokenizer = Tokenizer(config.model.text.part.context_length)
    lengths = [
        len(tokenizer.cut(tokenizer.encode_whole(text)))
        for index in range(min(_NUM_TEXT_SAMPLES, shards.num_samples))
        for text in sample_texts(shards[index]["captions"], config.data.captions, Random(index))
    ]
    return round(mean(lengths), 1)


def assumed_speed(rung: Rung, cost: ModelCost, config: LadderConfig) -> float | None:
    """Images a second of a run by `cost.*`; None where nothing is given."""
    given = config.cost
    of_a_rank = given.flops_per_second
    if not of_a_rank and given.accelerator:
        peak = ACCELERATORS[given.accelerator]
        is_bf16 = rung.config.engine.precision == "bf16"
        of_a_rank = given.mfu * (peak.bf16_flops if is_bf16 else peak.fp32_flops)
    if not of_a_rank:
        return None
    return of_a_rank * config.world_size / cost.computed_flops_per_sample
