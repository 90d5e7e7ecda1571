"""Pickles of official layouts, opened so that they can hold data and do nothing."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from pretrain.evaluate.benchmarks.base import LayoutError


class _ForbiddenError(Exception):
    pass


class _Array:
    """Stands for numpy.ndarray, whose constructor would take any amount of memory."""

    def __init__(self, *_: Any) -> None:
        raise _ForbiddenError("an array by its shape")


def _make_array(kind: Any, shape: Any, type_code: Any) -> np.ndarray:
    """An empty array, whose shape and bytes, which must fit each other, come afterwards."""
    if (kind, shape) != (_Array, (0,)):
        raise _ForbiddenError(f"an array of the shape {shape}")
    return np.empty(0, np.uint8)


def _make_dtype(code: Any, *flags: Any) -> np.dtype:
    """Of numbers only: values of no bytes could be any number."""
    dtype = np.dtype(code)
    if dtype.kind not in "buif":
        raise _ForbiddenError(f"an array of {dtype}")
    return dtype


def _to_bytes(text: Any, encoding: Any) -> bytes:
    """What Python 2 had as bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise _ForbiddenError(f"text in {encoding}")
    return text.encode("latin1")


#: What a pickled array is made of; numpy's modules have had two names.
_ARRAYS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _make_dtype,
    ("numpy.core.multiarray", "_reconstruct"): _make_array,
    ("numpy._core.multiarray", "_reconstruct"): _make_array,
    ("_codecs", "encode"): _to_bytes,
}


def read_pickle(path: Path, arrays: bool = False, encoding: str = "utf-8") -> Any:
    """Lists, dicts, texts and numbers of a pickle, and numpy's arrays where they are allowed.

    Args:
        encoding: of texts that Python 2 wrote.

    Raises:
        LayoutError: it is damaged, or holds anything else; nothing of it is run.
    """
    try:
        with path.open("rb") as file:
            return _Unpickler(file, arrays, encoding).load()
    except _ForbiddenError as error:
        raise LayoutError(
            f"{path} asks for {error}: the official file holds plain data only, so this one is "
            "not opened; get it from its source again"
        ) from None
    except OSError as error:
        raise LayoutError(f"{path} cannot be read: {error}") from None
    except Exception as error:  # the unpickler raises nearly anything on damaged bytes
        name = type(error).__name__
        raise LayoutError(f"{path} is no whole pickle ({name}: {error})") from None


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, arrays: bool, encoding: str) -> None:
        super().__init__(file, encoding=encoding, errors="strict")
        self._allowed = _ARRAYS if arrays else {}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._allowed[module, name]
        except KeyError:
            raise _ForbiddenError(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise _ForbiddenError(f"the outside object {pid!r}")
