"""What a run costs: training FLOPs by one convention, and an estimate of its time.

Counted by ``pretrain plan``: two FLOPs a multiply-accumulate, three times the forward pass of the
encoders (one forward, two backward), superpixels, through which no gradient goes, once, and the
objective with its gradients as it is computed at this batch. What is computed again to save memory
is left out. FLOPs of a run are those of all its samples, the trunk that it shares among them: what
the run would have taken alone.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from statistics import mean

from pretrain.config import PretrainConfig
from pretrain.data.captions import sample_texts
from pretrain.data.shards import TrainingShards
from pretrain.data.tokens import Tokenizer
from pretrain.plan.accelerators import ACCELERATORS
from pretrain.plan.command import PlanConfig, count_flops_per_sample
from pretrain.plan.step import count_forward_macs
from recaption.common.config import load_config, to_dict
from recaption.common.files import atomic_write, read_json
from tools.scaling_laws.ladder import LadderConfig, Rung, count_run_parameters

COSTS = "costs.json"
_NUM_TEXT_SAMPLES = 200  # whose texts are counted


@dataclass(frozen=True)
class ModelCost:
    """Of one image and its texts."""

    params_image: int
    params_text: int  # the token embedding included
    params: int  # N: of all parts, without the token embedding
    text_length: float  # tokens of a text, on average
    forward_macs: dict[str, int]  # by part of the encoders
    flops: dict[str, float]  # of a training step, by part, and `total`

    @property
    def flops_per_sample(self) -> float:
        return self.flops["total"]


class Costs:
    """Costs of the models of a ladder, counted once and kept in ``OUTPUT/costs.json``."""

    def __init__(self, config: LadderConfig) -> None:
        self._config = config
        self._path = Path(config.output) / COSTS
        self._kept = read_json(self._path) if self._path.exists() else {}
        self._text_lengths: dict[str, float] = {}

    def of(self, rung: Rung) -> ModelCost:
        length = self._config.cost.text_length or self._mean_text_length(rung.config)
        decides = {
            "model": to_dict(rung.config.model),
            "objective": to_dict(rung.config.objective),
            "captions": to_dict(rung.config.data.captions),
            "batch_size": rung.config.data.batch_size,
            "num_ranks": self._config.world_size,
            "text_length": length,
        }
        key = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
        if key not in self._kept:
            self._kept[key] = asdict(count_cost(rung, length, self._config.world_size))
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._path) as path:
                path.write_text(json.dumps(self._kept, indent=1))
        return ModelCost(**self._kept[key])

    def _mean_text_length(self, config: PretrainConfig) -> float:
        key = json.dumps([to_dict(config.data.captions), config.model.text.part.context_length])
        if key not in self._text_lengths:
            self._text_lengths[key] = mean_text_length(config)
        return self._text_lengths[key]


def count_cost(rung: Rung, text_length: float, world_size: int) -> ModelCost:
    """Counts on tensors without numbers: no data, no GPU."""
    length = max(1, round(text_length))
    words = [*rung.arguments, f"text_length={length}", f"gpus={world_size}"]
    config = load_config(PlanConfig, words)
    params = count_run_parameters(config)
    return ModelCost(
        params_image=params["image"],
        params_text=params["text"],
        params=params["total"],
        text_length=text_length,
        forward_macs=count_forward_macs(config, length),
        flops=count_flops_per_sample(config),
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
    return of_a_rank * config.world_size / cost.flops_per_sample if of_a_rank else None
