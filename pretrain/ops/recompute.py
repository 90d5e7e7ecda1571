"""Blocks that the backward computes again instead of keeping what is in them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class Recomputing(nn.Module):
    """A part of a model whose forward can be computed again in the backward."""

    recompute: bool = False

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """``function(*arguments)``, of which, with `recompute`, only the arguments are kept."""
        if not self.recompute or not torch.is_grad_enabled():
            return function(*arguments)
        return checkpoint(function, *arguments, use_reentrant=False)


def set_recompute(module: nn.Module, recompute: bool) -> None:
    """Makes all parts of a model that can recompute do so, or not."""
    for part in module.modules():
        if isinstance(part, Recomputing):
            part.recompute = recompute
