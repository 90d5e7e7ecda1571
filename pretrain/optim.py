"""What decays, how fast each parameter learns, and the schedule."""

import math
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from recaption.common.config import ConfigError, check_at_least, check_choice


@dataclass
class OptimConfig:
    learning_rate: float = 5e-4  # at the peak
    num_warmup_steps: int = 2000
    # behind the warm-up: cosine, down to the end; wsd: at the peak (warm-up, stable, decay), then
    # linearly down in the last `num_decay_steps`
    schedule: str = "cosine"
    num_decay_steps: int = 0  # wsd only; 0: a tenth of all steps
    final_share: float = 0.0  # of the peak, at the last step
    weight_decay: float = 0.5
    betas: list[float] = field(default_factory=lambda: [0.9, 0.98])
    eps: float = 1e-8
    # Logit scales and biases learn this many times faster: under Adam a scalar moves by at most
    # the learning rate a step, which in a short run never gets anywhere.
    scalar_lr_scale: float = 1.0

    def __post_init__(self) -> None:
        check_at_least(0, {"optim.num_warmup_steps": self.num_warmup_steps})
        check_at_least(0, {"optim.num_decay_steps": self.num_decay_steps})
        check_choice("optim.schedule", self.schedule, ("cosine", "wsd"))
        if not 0 <= self.final_share <= 1:
            raise ConfigError(f"optim.final_share={self.final_share}: a share of the peak, 0 to 1")
        if len(self.betas) != 2:
            raise ConfigError(f"optim.betas={self.betas}: give two numbers")


def parameter_groups(module: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """AdamW's groups: matrices decay, vectors do not, single numbers learn at their own rate."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        ([p for p in trained if p.ndim >= 2], config.weight_decay, 1.0),
        ([p for p in trained if p.ndim < 2 and p.numel() > 1], 0.0, 1.0),
        ([p for p in trained if p.ndim < 2 and p.numel() == 1], 0.0, config.scalar_lr_scale),
    ]
    return [
        {"params": parameters, "weight_decay": weight_decay, "lr_scale": lr_scale}
        for parameters, weight_decay, lr_scale in groups
        if parameters
    ]


def learning_rate(step: int, num_steps: int, config: OptimConfig) -> float:
    """Linear warm-up, then the schedule down to ``final_share`` of the peak at ``num_steps``.

    The stable part of wsd does not depend on ``num_steps``: a run can go on from a checkpoint in it
    to any length.
    """
    if step < config.num_warmup_steps:
        return config.learning_rate * (step + 1) / config.num_warmup_steps
    if config.schedule == "wsd":
        num_falling = config.num_decay_steps or max(1, num_steps // 10)
        share = 1 - _progress(
            step, max(config.num_warmup_steps, num_steps - num_falling), num_steps
        )
    else:
        progress = _progress(step, config.num_warmup_steps, num_steps)
        share = 0.5 * (1 + math.cos(math.pi * progress))
    return config.learning_rate * (config.final_share + (1 - config.final_share) * share)


def _progress(step: int, first: int, last: int) -> float:
    """0 up to step `first`, 1 from `last` on, linear between."""
    return min(max(step - first, 0) / max(1, last - first), 1.0)
