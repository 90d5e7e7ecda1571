"""The command: from a configuration to a plan."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from pretrain.config import PretrainConfig
from pretrain.data.captions import num_texts
from pretrain.models.count import count_parameters
from pretrain.plan.accelerators import ACCELERATORS, ASSUMED_MFU
from pretrain.plan.step import (
    LossTrace,
    StepTrace,
    build_without_numbers,
    count_forward_macs,
    count_recomputed_macs,
    trace_loss,
    trace_step,
)
from pretrain.plan.table import print_plan
from pretrain.plan.zero import STAGES, count_weights, peak, rank_state, sent_bytes
from recaption.common.config import ConfigError, check_at_least, check_choice, load_config
from recaption.common.config import print_json as print_json_line

USAGE = """usage: python -m pretrain plan CONFIG.yaml nodes=8 gpus=8 [key=value ...] [--json]

Tells what a training would need, without data and without a GPU: parameters, arithmetic, memory of
a rank by ZeRO stage, bytes sent, and with accelerator=... or peak_flops=... how long it would take.
CONFIG.yaml and the keys are those of `pretrain train`; config=CONFIG.yaml is understood too."""

PRECISIONS = ("fp32", "bf16")


@dataclass
class PlanConfig(PretrainConfig):
    """A run, and where it is to run."""

    run: str = ""  # not read
    nodes: int = 1  # machines
    gpus: int = 1  # ranks on each
    num_samples: int = 0  # images to train on; 0: as many as train.num_steps makes
    # tokens of each text, on average; 42 was that of docci and urban1k (docs/performance.md)
    text_length: int = 42
    device: str = "gpu"  # gpu or cpu: only GPUs update all weights in one kernel
    accelerator: str = ""  # a100, h100, h200 or l40s: gives peak_flops and the memory there is
    peak_flops: float = 0.0  # operations a second of one rank at best; 0: the accelerator's
    # Share of these that computing reaches, what is computed again included. An assumption, not a
    # prediction: measure a short run (its `mfu` in metrics.jsonl) and put that here.
    mfu: float = ASSUMED_MFU
    # bytes a second that a rank can send; 0: sending is left out of the time of a step
    bandwidth: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(1, {"nodes": self.nodes, "gpus": self.gpus, "text_length": self.text_length})
        numbers = ("num_samples", "peak_flops", "bandwidth")
        check_at_least(0, {name: getattr(self, name) for name in numbers})
        check_choice("device", self.device, ("gpu", "cpu"))
        if self.accelerator:
            check_choice("accelerator", self.accelerator, ACCELERATORS)
        if not 0 < self.mfu <= 1:
            raise ConfigError(f"mfu={self.mfu}: it is a share, above 0 and at most 1")

    @property
    def world_size(self) -> int:
        return self.nodes * self.gpus


def main(argv: list[str]) -> None:
    # `data.train` has no default, and is not read here.
    arguments = [argument.removeprefix("config=") for argument in argv]
    config = load_config(PlanConfig, ["data.train=none", *arguments], USAGE)
    plan = make_plan(config)
    print_plan(plan)
    print_json_line(argv, plan)


def make_plan(config: PlanConfig) -> dict[str, Any]:
    """All figures; bytes, operations (1 MAC = 2 FLOPs), seconds."""
    length = min(config.text_length, config.model.text.part.context_length)  # longer ones are cut
    module = build_without_numbers(config)
    encoders = {
        precision: trace_step(_in_precision(config, precision), length) for precision in PRECISIONS
    }
    loss = trace_loss(config, encoders[config.engine.precision].features, config.world_size)
    batch_size = config.data.batch_size * config.world_size
    num_samples = config.num_samples or config.train.num_steps * batch_size
    plan: dict[str, Any] = {
        "run": {
            "nodes": config.nodes,
            "gpus": config.gpus,
            "world_size": config.world_size,
            "batch_size": batch_size,
            "num_texts": num_texts(config.data.captions),
            "text_length": length,
            "num_samples": num_samples,
            "objective": config.objective.name,
            "precision": config.engine.precision,
            "zero_stage": config.engine.zero_stage,
            "recompute_blocks": config.train.recompute_blocks,
            "num_micro_batches": config.engine.num_micro_batches,
        },
        "parameters": count_parameters(module.model, module.objective),
        "flops_per_sample": _flops_per_sample(config, length, loss),
        "memory": {
            precision: [_memory(config, stage, trace, loss) for stage in STAGES]
            for precision, trace in encoders.items()
        },
    }
    weights = count_weights(module, config.optim)
    plan["sent_bytes"] = {
        "weights_and_gradients": [
            sent_bytes(weights, stage, config.world_size, config.engine.num_micro_batches)
            for stage in STAGES
        ],
        "features": loss.sent,
    }
    plan["accelerator_memory"] = (
        ACCELERATORS[config.accelerator].memory if config.accelerator else None
    )
    plan["time"] = _time(config, plan, num_samples)
    return plan


def count_flops_per_sample(config: PlanConfig) -> dict[str, float]:
    """The plan's FLOPs a sample alone, by part; see `_flops_per_sample`."""
    length = min(config.text_length, config.model.text.part.context_length)
    loss = trace_loss(config, trace_step(config, length).features, config.world_size)
    return _flops_per_sample(config, length, loss)


def _in_precision(config: PlanConfig, precision: str) -> PlanConfig:
    return replace(config, engine=replace(config.engine, precision=precision))


def _flops_per_sample(config: PlanConfig, length: int, loss: LossTrace) -> dict[str, float]:
    """Of a training step, by part: the encoders' forward three times, superpixels once.

    `total` is what must be computed, and what MFU is a share of. `again` comes on top: the forwards
    that a step makes twice to keep less (micro-batches: all of it; `train.recompute_blocks`: blocks
    and graph poolings). The loss is counted with its gradients, as it is computed.
    """
    macs = count_forward_macs(config, length)
    flops = {
        "image": 3 * 2.0 * macs["image"],
        "superpixels": 2.0 * macs.get("superpixels", 0),
        "text": 3 * 2.0 * macs["text"],
        "loss": loss.flops / config.data.batch_size,
    }
    return {**flops, "total": sum(flops.values()), "again": count_flops_again(config, length)}


def count_flops_again(config: PretrainConfig, length: int) -> float:
    """FLOPs a sample of what a step computes twice."""
    again = 0.0
    if config.engine.num_micro_batches > 1:
        again += 2.0 * sum(count_forward_macs(config, length).values())
    if config.train.recompute_blocks:
        again += 2.0 * count_recomputed_macs(config, length)
    return again


def _memory(
    config: PlanConfig, stage: int, encoders: StepTrace, loss: LossTrace
) -> dict[str, float]:
    """Bytes of one rank, by part and at the worst moment, in which not all parts live."""
    module = build_without_numbers(config)
    weights = count_weights(module, config.optim)
    has_ema = config.engine.ema_decay > 0
    num_pieces, is_gpu = config.engine.num_micro_batches, config.device == "gpu"
    state = rank_state(weights, stage, config.world_size, num_pieces, has_ema, is_gpu)
    return {
        **asdict(state),
        "activations": encoders.batch + encoders.activations,
        "loss": loss.memory,
        "peak": peak(state, encoders, loss.memory, num_pieces),
    }


def _time(config: PlanConfig, plan: dict[str, Any], num_samples: int) -> dict[str, float] | None:
    """Seconds of a step and of the training; None where no speed is given.

    Sending is added to computing: how much of it overlaps only a measurement can say.
    """
    peak_flops = config.peak_flops
    if config.accelerator and not peak_flops:
        accelerator = ACCELERATORS[config.accelerator]
        is_bf16 = config.engine.precision == "bf16"
        peak_flops = accelerator.bf16_flops if is_bf16 else accelerator.fp32_flops
    if not peak_flops:
        return None
    per_sample = plan["flops_per_sample"]
    needed, again = (per_sample[name] * config.data.batch_size for name in ("total", "again"))
    computing = (needed + again) / (peak_flops * config.mfu)
    sent = plan["sent_bytes"]
    in_all = sent["weights_and_gradients"][config.engine.zero_stage] + sent["features"]
    sending = in_all / config.bandwidth if config.bandwidth else 0.0
    step = computing + sending
    batch_size = plan["run"]["batch_size"]
    seconds = num_samples / batch_size * step
    return {
        "peak_flops": peak_flops,
        "share": config.mfu,
        "mfu": needed / (peak_flops * step),
        "computing_seconds": computing,
        "sending_seconds": sending,
        "step_seconds": step,
        "samples_per_second": batch_size / step,
        "days": seconds / 86400,
        "gpu_hours": seconds / 3600 * config.world_size,
    }
