"""Files that annotations name lie below the root: what they name is read, scored and shown."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pretrain.evaluate.benchmarks.base import LayoutError, Options
from pretrain.evaluate.benchmarks.registry import BENCHMARKS
from tests.pretrain.evaluate.benchmarks.layouts import WRITERS, write_goal_joint, write_picture
from tests.pretrain.evaluate.benchmarks.vision_layouts import write_voc

OUT = "../../secret.jpg"


def change_json(path: Path, change: Callable[[Any], None]) -> None:
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))


def change_lines(path: Path, key: str, value: str) -> None:
    rows = [json.loads(line) | {key: value} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def in_sharegpt4v(root: Path, name: str) -> None:
    change_json(root / "share4v_sam_10k.json", lambda tree: tree[1].update(image=name))


def in_coco(root: Path, name: str) -> None:
    path = root / "annotations" / "captions_val2017.json"
    change_json(path, lambda tree: tree["images"][1].update(file_name=name))


def in_docci(root: Path, name: str) -> None:
    change_lines(root / "annotations" / "docci_descriptions.jsonlines", "image_file", name)


def in_iiw(root: Path, name: str) -> None:
    change_lines(root / "DCI_Test" / "data.jsonl", "image", name)


def in_flickr30k(root: Path, name: str) -> None:
    path = root / "results_20130124.token"
    (root / "test.txt").write_text(f"{name}\n")
    path.write_text(f"{name}#0\tA text.\n")


def in_dci(root: Path, name: str) -> None:
    path = root / "densely_captioned_images" / "annotations" / "0.json"
    change_json(path, lambda entry: entry.update(image=name))


def in_dci_splits(root: Path, name: str) -> None:
    path = root / "densely_captioned_images" / "splits.json"
    change_json(path, lambda splits: splits.update(train=[name]))


@pytest.mark.parametrize(
    ("benchmark", "change"),
    [
        ("sharegpt4v", in_sharegpt4v),
        ("coco", in_coco),
        ("docci", in_docci),
        ("iiw", in_iiw),
        ("flickr30k", in_flickr30k),
        ("dci", in_dci),
        ("dci", in_dci_splits),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_no_name_leads_out_of_the_root(
    benchmark: str, change: Callable[[Path, str], None], tmp_path: Path
) -> None:
    root = WRITERS[benchmark](tmp_path / "a" / "b")
    write_picture(tmp_path / "secret.jpg", 1)
    change(root, OUT)
    variant = next(iter(BENCHMARKS[benchmark].variants))
    with pytest.raises(LayoutError, match="leads out of the root") as caught:
        BENCHMARKS[benchmark].read(root, Options(variant, allow_missing=True))
    assert str(root) in str(caught.value)  # the file that names it


def test_absolute_names_and_no_names(tmp_path: Path) -> None:
    root = WRITERS["sharegpt4v"](tmp_path / "root")
    write_picture(tmp_path / "secret.jpg", 1)
    read = BENCHMARKS["sharegpt4v"].read
    for name, message in ((str(tmp_path / "secret.jpg"), "leads out"), ("", "no name of a file")):
        in_sharegpt4v(root, name)
        with pytest.raises(LayoutError, match=rf"share4v_sam_10k\.json, entry 1: .*{message}"):
            read(root, Options("10k", allow_missing=True))


def test_parts_and_lists_of_names(tmp_path: Path) -> None:
    root = write_goal_joint(tmp_path / "dci")
    path = next(root.glob("DCI_test_joint*.json"))
    change_json(path, lambda tree: tree[-1].update(filename="x/segment_with_background/../a.jpg"))
    with pytest.raises(LayoutError, match="leads out of the root"):
        BENCHMARKS["dci"].read(root, Options("joint", allow_missing=True))
    base = write_voc(tmp_path / "voc", "2007_000033")
    (base / "ImageSets" / "Segmentation" / "val.txt").write_text(f"{OUT}\n")
    with pytest.raises(LayoutError, match=r"val\.txt: .*leads out of the root"):
        BENCHMARKS["voc20"].read(tmp_path / "voc", Options("val", allow_missing=True))
