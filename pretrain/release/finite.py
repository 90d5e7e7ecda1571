"""Weights that are numbers, before they are handed on."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from recaption.common.config import UserError


def check_finite(state: Mapping[str, Tensor], where: Path | str, what_to_do: str) -> None:
    """Looks for what is not finite.

    Args:
        state: tensors by name.
        where: they come from, as the error names it.
        what_to_do: the end of the error.

    Raises:
        UserError: naming the first tensor that holds such a thing.
    """
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise UserError(f"{where} holds NaN or infinity in {name}: {what_to_do}")
