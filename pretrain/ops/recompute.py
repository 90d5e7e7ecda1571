"""Blocks that the backward computes again instead of keeping what is in them."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

_is_inside = ContextVar("_is_inside", default=False)


def recomputed(function: Callable[..., Any], *arguments: Any) -> Any:
    """``function(*arguments)``, of which only the arguments are kept.

    Within what is recomputed anyway, and where no gradients are taken, it is just called.
    """
    if not torch.is_grad_enabled():
        return function(*arguments)
    if torch.compiler.is_compiling():
        return checkpoint(function, *arguments, use_reentrant=False)
    if is_recomputed():
        return function(*arguments)
    return checkpoint(function, *arguments, use_reentrant=False, context_fn=_inside_both_times)


def is_recomputed() -> bool:
    """Whether this is part of what `recomputed` calls: then there is no need to keep little.

    Not for code that a compiler reads.
    """
    return _is_inside.get()


class Recomputing(nn.Module):
    """A part of a model whose forward can be computed again in the backward."""

    recompute: bool = False

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """``function(*arguments)``, of which, with `recompute`, only the arguments are kept."""
        return recomputed(function, *arguments) if self.recompute else function(*arguments)


def set_recompute(module: nn.Module, recompute: bool) -> None:
    """Makes all parts of a model that can recompute do so, or not."""
    for part in module.modules():
        if isinstance(part, Recomputing):
            part.recompute = recompute


def _inside_both_times() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return _Inside(), _Inside()


class _Inside:
    """Can be entered again: a graph that is retained is computed again for each backward."""

    def __enter__(self) -> None:
        self._token = _is_inside.set(True)

    def __exit__(self, *error: object) -> None:
        _is_inside.reset(self._token)
