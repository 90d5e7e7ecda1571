"""Benchmarks other than retrieval as their authors publish them, in small; pictures of stripes."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pretrain.evaluate.benchmarks.fg_ovd import FILES
from pretrain.evaluate.benchmarks.sugarcrepe import KINDS
from tests.pretrain.evaluate.benchmarks.colours import RGB, write_picture

CIFAR_NAMES = ["red", "green", "blue_sky"]
REFCOCO_IMAGES = Path("images/mscoco/images/train2014")
RIGHT_QUARTER = [[6.0, 0.0, 8.0, 0.0, 8.0, 16.0, 6.0, 16.0]]
LEFT_HALF = [[0.0, 0.0, 4.0, 0.0, 4.0, 16.0, 0.0, 16.0]]


def write_pickle(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, 2))


def write_cifar10(root: Path, colours: list[str], labels: list[int]) -> Path:
    """Rows of 1,024 red values, then green, then blue ones."""
    rows = [np.repeat(np.array(RGB[colour], np.uint8), 1024) for colour in colours]
    folder = root / "cifar-10-batches-py"
    write_pickle(folder / "batches.meta", {"label_names": CIFAR_NAMES, "num_vis": 3072})
    write_pickle(
        folder / "test_batch", {"data": np.stack(rows), "labels": labels, "batch_label": "x"}
    )
    return folder


def write_cifar100(root: Path) -> Path:
    """A black picture of the second of two classes."""
    folder = root / "cifar-100-python"
    write_pickle(folder / "meta", {"fine_label_names": ["a", "b"], "coarse_label_names": ["c"]})
    content = {"data": np.zeros((1, 3072), np.uint8), "fine_labels": [1], "coarse_labels": [0]}
    write_pickle(folder / "test", content)
    return folder


def write_fg_ovd(root: Path) -> Path:
    """One crop of each difficulty, with ten wrong expressions."""
    write_picture(root / "val2017" / "000000000001.jpg", "red", "green")
    row = {
        "img_path": "/val2017/000000000001.jpg",
        "bbox": [8.0, 0.0, 8.0, 16.0],
        "pos_expression": ["a green bag"],
        "neg_expression": ["a red bag", *(f"hat {number}" for number in range(9))],
    }
    for names in FILES.values():
        (root / names[0]).write_text(json.dumps(row) + "\n")
    return root


def write_sugarcrepe(root: Path) -> Path:
    """One entry a kind, two of `swap_att`, of which the second's right caption is wrong."""
    write_picture(root / "val2017" / "000000000001.jpg", "red")
    entry = {
        "filename": "000000000001.jpg",
        "caption": "a red wall",
        "negative_caption": "a blue wall",
    }
    swapped = entry | {"caption": "a blue door", "negative_caption": "a red door"}
    for kind in KINDS:
        entries = [entry, swapped] if kind == "swap_att" else [entry]
        (root / f"{kind}.json").write_text(json.dumps(dict(enumerate(entries))))
    return root


def reference(number: int, split: str, *sentences: str) -> dict[str, Any]:
    return {
        "ref_id": number,
        "ann_id": 100 + number,
        "image_id": number,
        "split": split,
        "file_name": f"COCO_train2014_{number:012d}_{number}.jpg",
        "category_id": 1,
        "sentences": [{"sent": s, "raw": s, "tokens": s.split(), "sent_id": 0} for s in sentences],
    }


REFS = [
    reference(1, "val", "the blue wall", "right"),
    reference(2, "val", "red"),
    reference(3, "testA", "the green wall"),
]


def write_refcoco(root: Path, folder: str = "refcoco", name: str = "refs(unc).p") -> Path:
    """Of picture 1 the right quarter is blue, of picture 2 the left quarter red."""
    for number in (1, 2, 3):
        colours = ("red",) * 3 + ("blue",) if number == 1 else ("red",) + ("green",) * 3
        path = root / REFCOCO_IMAGES / f"COCO_train2014_{number:012d}.jpg"
        write_picture(path, *colours, size=(8, 16))
    images = [
        {"id": n, "file_name": f"COCO_train2014_{n:012d}.jpg", "width": 8, "height": 16}
        for n in (1, 2, 3)
    ]
    shapes = [RIGHT_QUARTER, LEFT_HALF, RIGHT_QUARTER]
    things = [
        {"id": 100 + n, "image_id": n, "segmentation": shape, "category_id": 1}
        for n, shape in enumerate(shapes, 1)
    ]
    instances = root / folder / "instances.json"
    instances.parent.mkdir(exist_ok=True)
    instances.write_text(json.dumps({"images": images, "annotations": things}))
    write_pickle(root / folder / name, REFS)
    return root / folder / name


def write_labels(path: Path, values: list[list[int]], mode: str = "P") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.array(values, np.uint8)).convert("L")
    if mode == "P":
        image = Image.frombytes("P", image.size, image.tobytes())
        image.putpalette([n % 256 for n in range(768)])
    image.save(path, "PNG")


def stripes(width: int, *values: int, height: int = 16) -> list[list[int]]:
    return [[value for value in values for _ in range(width)]] * height


def write_voc(root: Path, *names: str) -> Path:
    base = root / "VOCdevkit" / "VOC2012"
    (base / "ImageSets" / "Segmentation").mkdir(parents=True)
    (base / "ImageSets" / "Segmentation" / "val.txt").write_text("\n".join(names) + "\n")
    for name in names:
        write_picture(base / "JPEGImages" / f"{name}.jpg", "red", "blue")
        write_labels(base / "SegmentationClass" / f"{name}.png", stripes(4, 0, 1, 255, 20))
    return base


def write_ade(root: Path, *names: str) -> Path:
    base = root / "ADEChallengeData2016"
    head = "Idx\tRatio\tTrain\tVal\tStuff\tName\n"
    rows = [f"{n}\t0.1\t10\t1\t1\tthing {n}, other name\n" for n in range(1, 151)]
    base.mkdir()
    (base / "objectInfo150.txt").write_text(head + "".join(rows))
    for name in names:
        write_picture(base / "images" / "validation" / f"{name}.jpg", "red")
        write_labels(base / "annotations" / "validation" / f"{name}.png", stripes(8, 0, 150), "L")
    return base
