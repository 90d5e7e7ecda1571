"""What decays, how fast each parameter learns, and the schedule."""

import math
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from recaption.common.config import ConfigError, check_at_least


@dataclass
class OptimConfig:
    learning_rate: float = 5e-4  # at the peak
    num_warmup_steps: int = 2000
    weight_decay: float = 0.5
    betas: list[float] = field(default_factory=lambda: [0.9, 0.98])
    eps: float = 1e-8
    # Logit scales and biases learn this many times faster: under Adam a scalar moves by at most
    # the learning rate a step, which in a short run never gets anywhere.
    scalar_lr_scale: float = 1.0

    def __post_init__(self) -> None:
        check_at_least(0, {"optim.num_warmup_steps": self.num_warmup_steps})
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
    """Linear warm-up, then half a cosine down to zero at ``num_steps``."""
    if step < config.num_warmup_steps:
        return config.learning_rate * (step + 1) / config.num_warmup_steps
    progress = (step - config.num_warmup_steps) / max(1, num_steps - config.num_warmup_steps)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
