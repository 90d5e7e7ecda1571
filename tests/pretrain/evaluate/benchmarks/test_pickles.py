"""Pickles hold data, or are refused before they do anything."""

import codecs
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pretrain.evaluate.benchmarks.base import LayoutError
from pretrain.evaluate.benchmarks.pickles import read_pickle
from tests.pretrain.pickles import Touch


def _write(path: Path, value: object, protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps(value, protocol))
    return path


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_plain_data_and_arrays_come_back(tmp_path: Path, protocol: int) -> None:
    plain = [{"a": 1, "b": ("x", 2.5, None, True, "é")}]
    assert read_pickle(_write(tmp_path / "plain.p", plain, protocol)) == plain
    arrays = {"data": np.arange(6, dtype=np.uint8).reshape(2, 3)}
    path = _write(tmp_path / "arrays.p", arrays, min(protocol, 4))
    np.testing.assert_array_equal(read_pickle(path, arrays=True)["data"], arrays["data"])


def test_what_python_2_wrote(tmp_path: Path) -> None:
    path = tmp_path / "refs.p"
    path.write_bytes(b"(lp0\n(dp1\nS'sent'\np2\nS'a caf\\xc3\\xa9'\np3\nsS'ann_id'\np4\nL12L\nsa.")
    assert read_pickle(path) == [{"sent": "a café", "ann_id": 12}]


def test_code_is_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    path = _write(tmp_path / "bad.p", [Touch(mark)])
    for arrays in (False, True):
        with pytest.raises(
            LayoutError, match=r"bad\.p asks for pathlib.*touch|bad\.p asks for"
        ) as e:
            read_pickle(path, arrays)
        assert "\n" not in str(e.value)
    assert not mark.exists()
    pickle.loads(path.read_bytes())
    assert mark.exists()  # it would have been


def test_arrays_only_where_they_belong(tmp_path: Path) -> None:
    path = _write(tmp_path / "refs.p", [np.zeros(2)])
    with pytest.raises(LayoutError, match=r"asks for numpy"):
        read_pickle(path)


def test_a_download_that_broke_off(tmp_path: Path) -> None:
    path = _write(tmp_path / "test_batch", {"data": np.zeros(100)})
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(LayoutError, match=r"test_batch is no whole pickle"):
        read_pickle(path, arrays=True)
    with pytest.raises(LayoutError, match=r"nothing cannot be read"):
        read_pickle(tmp_path / "nothing")


class Call:
    """Pickled, a call that the unpickler makes."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


MAKE_ARRAY = np.empty(0).__reduce__()[0]


@pytest.mark.parametrize(
    "call",
    [
        Call(np.ndarray, (2**40,)),
        Call(MAKE_ARRAY, np.ndarray, (2**40,), b"b"),
        Call(np.dtype, "V0"),
        Call(np.dtype, "O"),
        Call(codecs.encode, "a" * 9, "zlib_codec"),
    ],
    ids=["array", "reconstructed", "of nothing", "of objects", "compressed"],
)
def test_a_small_file_takes_no_memory(tmp_path: Path, call: Call) -> None:
    """Nor anything else but arrays of numbers, whose bytes stand in the file."""
    path = _write(tmp_path / "small.p", [call])
    with pytest.raises(LayoutError, match=r"small\.p asks for (an array|text in)"):
        read_pickle(path, arrays=True)
