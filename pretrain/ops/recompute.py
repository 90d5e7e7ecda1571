"""What the backward computes again instead of keeping it in memory."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

#: none; elementwise: norms and activations, which cost little; blocks: all but a block's input.
CHOICES = ("none", "elementwise", "blocks")


class Recomputing(nn.Module):
    """A part of a model whose forward can be computed again in the backward."""

    recompute: str = "none"

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """``function(*arguments)``, with what it keeps as `recompute` says."""
        if self.recompute == "none" or not torch.is_grad_enabled():
            return function(*arguments)
        if self.recompute == "blocks":
            return checkpoint(function, *arguments, use_reentrant=False)
        return checkpoint(
            function,
            *arguments,
            use_reentrant=False,
            context_fn=partial(create_selective_checkpoint_contexts, _keep_products),
        )


def set_recompute(module: nn.Module, choice: str) -> None:
    """Makes all parts of a model that can recompute do as `choice`, one of `CHOICES`, says."""
    for part in module.modules():
        if isinstance(part, Recomputing):
            part.recompute = choice


def _keep_products(_: Any, operation: Any, *arguments: Any, **options: Any) -> CheckpointPolicy:
    name = operation.name()
    is_product = any(word in name for word in ("mm", "attention", "attn", "convolution"))
    # What leads back from a wide layer ends an MLP; no gradient asks for its result.
    if name == "aten::addmm":
        _, rows, weight = arguments
        is_product = weight.shape[1] >= rows.shape[1]
    elif name == "aten::convolution":  # a linear layer on a CPU
        is_product = arguments[1].shape[0] >= arguments[1].shape[1]
    return CheckpointPolicy.MUST_SAVE if is_product else CheckpointPolicy.PREFER_RECOMPUTE
