"""Weights that others published: safetensors, or what `torch.save` wrote."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from recaption.common.config import UserError


def read_state_dict(path: Path | str) -> dict[str, Tensor]:
    """Tensors by name, on the CPU, without the prefix "module." of data-parallel training.

    A file of `torch.save` is read without pickle's power to run code; of a whole training
    checkpoint its `state_dict` is taken.

    Raises:
        UserError: the file is missing, damaged, or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there are no weights at {path}")
    try:
        state: Any
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} cannot be read as weights: {reason}") from None
    except Exception:  # what is no pickle, such as a text, fails in any way
        raise UserError(
            f"{path} cannot be read as weights: torch.save did not write it, or more than tensors"
        ) from None
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise UserError(f"{path} holds no state dict: tensors by name")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}
