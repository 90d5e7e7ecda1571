"""Tensors of a TorchScript archive, in which OpenAI published CLIP; none of its code is run."""

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from recaption.common.config import UserError

_STORAGES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}


def is_torchscript(path: Path) -> bool:
    """Whether a file is an archive of `torch.jit.save`; one whose list is damaged is none."""
    try:
        if not zipfile.is_zipfile(path):
            return False
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Tensors of its modules by name, on the CPU; causal masks, which are computed, left out.

    The archive's code is not looked at. Of its pickle only attributes of modules and tensors are
    built; whatever else it names is refused.

    Raises:
        UserError: the archive is damaged, or names something else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            (pickled,) = (n for n in archive.namelist() if n.endswith("/data.pkl"))
            with archive.open(pickled) as file:
                module = _Reader(file, archive, pickled.removesuffix("data.pkl")).load()
    except Exception as error:  # a malformed archive or pickle fails in any way
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} cannot be read as TorchScript: {reason}") from None
    if not isinstance(module, _Module):
        raise UserError(f"{path} holds no module")
    return dict(module.tensors(""))


class _Module:
    """Stands for any module of the archive: its attributes, no code."""

    def __init__(self) -> None:
        self.attributes: dict[str, Any] = {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.attributes = dict(state)

    def tensors(self, prefix: str) -> list[tuple[str, Tensor]]:
        found: list[tuple[str, Tensor]] = []
        for name, value in self.attributes.items():
            if isinstance(value, _Module):
                found += value.tensors(f"{prefix}{name}.")
            elif isinstance(value, Tensor) and name != "attn_mask":
                found.append((f"{prefix}{name}", value))
        return found


class _Reader(pickle.Unpickler):
    """Knows modules and tensors, and refuses all else.

    Args:
        file: the pickle.
        archive: holds the tensors' numbers.
        root: folder of the archive that holds both.
    """

    def __init__(self, file: Any, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(file)
        self._archive = archive
        self._root = root

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return _Module
        if module == "torch" and name in _STORAGES:
            return name
        known = {
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("collections", "OrderedDict"): OrderedDict,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no tensor")
        return known[module, name]

    def persistent_load(self, identity: Any) -> Tensor:
        """The numbers of a storage, in a row."""
        _, storage, key, _, num_elements = identity
        content = self._archive.read(f"{self._root}data/{key}")
        dtype = _STORAGES[storage]
        if len(content) != num_elements * dtype.itemsize:
            raise pickle.UnpicklingError(f"data/{key} holds {len(content)} bytes: it is cut")
        if not content:
            return torch.empty(0, dtype=dtype)
        return torch.frombuffer(bytearray(content), dtype=dtype)


def _tensor(
    storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> Tensor:
    return torch.as_strided(storage, size, stride, offset).clone()
