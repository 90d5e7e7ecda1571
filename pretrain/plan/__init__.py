"""What a training would need, before it is begun."""

from pretrain.plan.command import main

__all__ = ["main"]
