"""Optimizers and schedule of the captioner's training."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

#: Muon's updates have the size of AdamW's (``match_rms_adamw``) times this.
MUON_LR_FACTOR = 3.0


class Optimizers:
    """Muon for the matrices inside the transformers, AdamW for everything else.

    Muon (Jordan et al., 2024) needs about half of AdamW's steps here. The learning rate rises
    over ``num_warmup`` steps, stays, and falls linearly to zero over the last ``decay_share``.
    """

    def __init__(
        self,
        modules: Iterable[nn.Module],
        lr: float,
        num_steps: int,
        num_warmup: int = 30,
        decay_share: float = 0.4,
    ) -> None:
        named = [item for module in modules for item in module.named_parameters()]
        named = [(name, p) for name, p in named if p.requires_grad]
        matrices = [p for name, p in named if p.ndim == 2 and ".layers." in name]
        taken = {id(p) for p in matrices}
        others = [p for _, p in named if id(p) not in taken]
        self.parameters = [p for _, p in named]
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
        ]
        if matrices:
            self.optimizers.append(
                torch.optim.Muon(matrices, lr=lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
            )
        self.lrs = [lr, MUON_LR_FACTOR * lr]
        self.num_steps = num_steps
        self.num_warmup = num_warmup
        self.decay_share = decay_share

    def step(self, step: int) -> None:
        """Clips, updates and clears the gradients of step ``step``."""
        left = (self.num_steps - step) / (self.decay_share * self.num_steps)
        scale = min(1.0, (step + 1) / self.num_warmup, left)
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimizer, lr in zip(self.optimizers, self.lrs, strict=False):
            for group in optimizer.param_groups:
                group["lr"] = lr * scale
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict[str, Any]]:
        return [optimizer.state_dict() for optimizer in self.optimizers]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(state)
