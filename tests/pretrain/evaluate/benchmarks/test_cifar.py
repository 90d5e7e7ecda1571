"""CIFAR's python archives, written as they unpack."""

from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from pretrain.evaluate.benchmarks.base import LayoutError, Options
from pretrain.evaluate.benchmarks.cifar import read_cifar10, read_cifar100
from pretrain.evaluate.classification import evaluate
from tests.pretrain.evaluate.benchmarks.colours import RGB, ColourEncoders
from tests.pretrain.evaluate.benchmarks.vision_layouts import (
    write_cifar10,
    write_cifar100,
    write_pickle,
)
from tests.pretrain.pickles import Touch

SOME = Options(allow_missing=True)


def test_pictures_labels_and_names(tmp_path: Path) -> None:
    write_cifar10(tmp_path, ["red", "green", "blue"], [0, 1, 1])
    data = read_cifar10(tmp_path, SOME)
    assert data.classes == ["red", "green", "blue sky"]
    assert [picture.open().getpixel((31, 0)) for picture in data.images] == list(RGB.values())
    assert data.images[2].path.is_file()
    assert [path.name for path in data.coverage.inputs] == ["test_batch", "batches.meta"]
    result = evaluate(data, ColourEncoders(), batch_size=2)
    assert result["top1"] == pytest.approx(2 / 3)
    with pytest.raises(LayoutError, match="9,997 of 10,000 images of test_batch"):
        read_cifar10(tmp_path, Options())


def test_pixels_lie_as_torchvision_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_cifar10(tmp_path, ["red"], [2])
    noise = np.random.default_rng(0).integers(0, 256, (1, 3072), dtype=np.uint8)
    write_pickle(folder / "test_batch", {"data": noise, "labels": [2]})
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", ""]])
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    theirs, label = CIFAR10(tmp_path, train=False)[0]
    data = read_cifar10(folder, SOME)
    assert label == data.labels[0]
    np.testing.assert_array_equal(np.array(theirs), np.array(data.images[0].open()))


def test_cifar100_takes_the_fine_labels(tmp_path: Path) -> None:
    write_cifar100(tmp_path)
    data = read_cifar100(tmp_path, SOME)
    assert (data.labels, data.classes) == ([1], ["a", "b"])


def test_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="cifar-10-batches-py/test_batch"):
        read_cifar10(tmp_path, SOME)
    folder = write_cifar10(tmp_path, ["red"], [3])
    with pytest.raises(LayoutError, match="test_batch: a label is none of the 3 classes"):
        read_cifar10(tmp_path, SOME)
    write_pickle(folder / "test_batch", {"data": np.zeros((2, 3072), np.uint8), "labels": [0]})
    with pytest.raises(LayoutError, match=r"test_batch: \(2, 3072\) bytes and 1 labels"):
        read_cifar10(tmp_path, SOME)
    write_pickle(folder / "test_batch", [Touch(tmp_path / "mark")])
    with pytest.raises(LayoutError, match="test_batch asks for"):
        read_cifar10(tmp_path, SOME)
    assert not (tmp_path / "mark").exists()
    write_pickle(folder / "batches.meta", {"label_names": "red"})
    with pytest.raises(LayoutError, match=r"batches\.meta has no list label_names"):
        read_cifar10(tmp_path, SOME)
    (folder / "batches.meta").unlink()
    with pytest.raises(LayoutError, match=r"batches\.meta"):
        read_cifar10(tmp_path, SOME)
