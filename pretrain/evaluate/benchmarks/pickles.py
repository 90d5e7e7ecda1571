"""Pickles of official layouts, opened so that they can hold data and do nothing."""

import codecs
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from pretrain.evaluate.benchmarks.base import LayoutError

_make_array = np.empty(0).__reduce__()[0]  # numpy's own, whichever module it lives in
#: What a pickled array is made of. `encode` turns text into the bytes that Python 2 had.
_ARRAYS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _make_array,
    ("numpy._core.multiarray", "_reconstruct"): _make_array,
    ("_codecs", "encode"): codecs.encode,
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


class _ForbiddenError(Exception):
    pass


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
