"""CIFAR-10 and CIFAR-100 as their python archives unpack, which is torchvision's layout.

Class names stand in the archives (`batches.meta`, `meta`).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pretrain.evaluate.benchmarks.base import ClassificationSet, LayoutError, Options, Picture
from pretrain.evaluate.benchmarks.imagenet import templates
from pretrain.evaluate.benchmarks.layout import find_file
from pretrain.evaluate.benchmarks.pickles import read_pickle
from pretrain.evaluate.benchmarks.present import Present

_PROTOCOL = (
    "the 10,000 test images of 32 x 32 pixels; class names from the archive's own list, and the 80 "
    "templates of CLIP for ImageNet (OpenAI had 18 of its own for CIFAR)"
)
CIFAR10_VARIANTS = {"test": f"CIFAR-10, {_PROTOCOL}"}
CIFAR100_VARIANTS = {"test": f"CIFAR-100 with its 100 fine labels, {_PROTOCOL}"}
_NUM_IMAGES = 10_000
_SHAPE = (3, 32, 32)


@dataclass(frozen=True)
class ArrayPicture(Picture):
    """One of many pictures in a file, which `name` is."""

    pixels: np.ndarray = field(  # (H, W, 3) uint8
        default_factory=lambda: np.zeros((1, 1, 3), np.uint8), repr=False, compare=False
    )

    def open(self) -> Image.Image:
        return Image.fromarray(self.pixels)


@dataclass(frozen=True)
class _Layout:
    benchmark: str
    folder: str
    test: str  # file of the test images
    meta: str  # file of the class names
    labels: str  # key of the labels
    names: str  # key of the class names


_CIFAR10 = _Layout(
    "cifar10", "cifar-10-batches-py", "test_batch", "batches.meta", "labels", "label_names"
)
_CIFAR100 = _Layout(
    "cifar100", "cifar-100-python", "test", "meta", "fine_labels", "fine_label_names"
)


def read_cifar10(root: Path, options: Options) -> ClassificationSet:
    """`root`/cifar-10-batches-py, or the root itself. Raises: LayoutError: it is none."""
    return _read(root, _CIFAR10, options)


def read_cifar100(root: Path, options: Options) -> ClassificationSet:
    """`root`/cifar-100-python, or the root itself. Raises: LayoutError: it is none."""
    return _read(root, _CIFAR100, options)


def _read(root: Path, layout: _Layout, options: Options) -> ClassificationSet:
    test = find_file(root, f"{layout.folder}/{layout.test}", layout.test)
    meta = find_file(root, str(test.with_name(layout.meta).relative_to(root)), is_root_sure=True)
    classes = _entry(meta, layout.names)
    data, labels = _entry(test, "data"), _entry(test, layout.labels)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2:
        raise LayoutError(f"{test}: data is no array of bytes, one row an image")
    if data.shape[1] != np.prod(_SHAPE) or len(data) != len(labels):
        raise LayoutError(f"{test}: {data.shape} bytes and {len(labels)} labels do not match")
    if any(type(label) is not int or not 0 <= label < len(classes) for label in labels):
        raise LayoutError(f"{test}: a label is none of the {len(classes)} classes")
    present = Present(layout.benchmark, root, options)
    if len(data) < _NUM_IMAGES:
        present.lacks(f"{_NUM_IMAGES - len(data):,} of {_NUM_IMAGES:,} images of {test.name}")
    pixels = data.reshape(-1, *_SHAPE).transpose(0, 2, 3, 1)
    name = str(test.relative_to(root))
    images = [ArrayPicture(root, name, pixels=image) for image in pixels]
    coverage = present.coverage(len(images), _NUM_IMAGES, [test, meta])
    names = [str(label).replace("_", " ") for label in classes]
    return ClassificationSet(images, labels, names, templates(), coverage)


def _entry(path: Path, key: str) -> Any:
    """One list or array of a pickled dict."""
    content = read_pickle(path, arrays=True, encoding="latin1")
    if not isinstance(content, dict) or not isinstance(content.get(key), (list, np.ndarray)):
        raise LayoutError(f"{path} has no list {key}: it is no file of CIFAR's python version")
    return content[key]
