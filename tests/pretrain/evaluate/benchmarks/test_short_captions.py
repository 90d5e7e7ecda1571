"""COCO and Flickr30k: several captions an image, all of which count."""

import json
from pathlib import Path
from types import ModuleType

import pytest

from pretrain.evaluate.benchmarks import coco, flickr30k
from pretrain.evaluate.benchmarks.base import LayoutError
from pretrain.evaluate.benchmarks.described import describe
from pretrain.evaluate.benchmarks.registry import BENCHMARKS
from tests.pretrain.evaluate.benchmarks.layouts import (
    WRITERS,
    names,
    read,
    write_coco,
    write_flickr30k,
)


def test_coco_with_all_captions_or_five(tmp_path: Path) -> None:
    root = write_coco(tmp_path)
    everything = read("coco", root)
    assert [everything.image_of_text.count(image) for image in range(3)] == [5, 6, 5]
    five = read("coco", root, "first5")
    assert [five.image_of_text.count(image) for image in range(3)] == [5, 5, 5]
    assert five.texts[:5] == [f"Picture 0 in words {n}." for n in range(5)]
    assert everything.coverage.notes == {"images with several texts": 3}


def test_annotators_of_coco_may_write_the_same_words(tmp_path: Path) -> None:
    path = write_coco(tmp_path) / "annotations" / "captions_val2017.json"
    tree = json.loads(path.read_text())
    first, *others = tree["annotations"]
    again = first | {"id": 77}
    path.write_text(json.dumps(tree | {"annotations": [first, first, again, *others]}))
    data = read("coco", tmp_path)
    assert [data.image_of_text.count(image) for image in range(3)] == [6, 6, 5]
    assert list(data.texts[:2]) == [first["caption"]] * 2
    assert data.coverage.notes == {
        "rows that were there before": 1,
        "images with several texts": 3,
        "texts that several annotators wrote alike": 1,
    }
    five = read("coco", tmp_path, "first5")
    assert [five.image_of_text.count(image) for image in range(3)] == [5, 5, 5]


def test_annotators_of_flickr30k_may_write_the_same_words(tmp_path: Path) -> None:
    path = write_flickr30k(tmp_path) / "results_20130124.token"
    lines = path.read_text().splitlines()
    alike = [line.replace("in words 1", "in words 0") for line in lines]
    path.write_text("\n".join([*alike, *alike]) + "\n")
    data = read("flickr30k", tmp_path)
    assert len(data.texts) == 10
    assert data.coverage.notes["rows that were there before"] == 10
    assert data.coverage.notes["texts that several annotators wrote alike"] == 2


@pytest.mark.parametrize(
    ("name", "variant", "layout", "num_images", "absent"),
    [
        ("coco", "all", coco, 3, "24,998 of 25,014 texts"),
        ("coco", "first5", coco, 3, "24,985 of 25,000 texts"),
        ("flickr30k", "test", flickr30k, 2, "4,990 of 5,000 texts"),
    ],
)
def test_texts_that_the_protocol_has_and_the_files_have_not(
    name: str,
    variant: str,
    layout: ModuleType,
    num_images: int,
    absent: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(layout, "_NUM_IMAGES", num_images)
    root = WRITERS[name](tmp_path)
    if variant == "all":  # a text that is empty is told by its name, not in the number
        path = root / "annotations" / "captions_val2017.json"
        path.write_text(path.read_text().replace("Picture 0 in words 2.", " "))
    with pytest.raises(LayoutError, match=f"missing in .*{absent}"):
        read(name, root, variant, allow_missing=False)
    data = read(name, root, variant)
    assert data.coverage.missing[-1] == absent
    of_texts = describe(BENCHMARKS[name], variant, data)["coverage"]
    assert of_texts["num_samples"] == of_texts["num_expected"] == num_images
    # All of the images, and a small part of the set.
    assert of_texts["share"] == of_texts["num_texts"] / of_texts["num_texts_expected"] < 0.01


def test_flickr30k_takes_the_test_images_by_either_list(tmp_path: Path) -> None:
    root = write_flickr30k(tmp_path)
    by_names = read("flickr30k", root)
    assert names(by_names) == ["1001.jpg", "1003.jpg"]
    assert len(by_names.texts) == 10
    (root / "test.txt").unlink()
    images = [
        {"filename": f"{1000 + n}.jpg", "split": "test" if n % 2 else "train"} for n in range(4)
    ]
    (root / "dataset_flickr30k.json").write_text(json.dumps({"images": images}))
    assert names(read("flickr30k", root)) == ["1001.jpg", "1003.jpg"]
