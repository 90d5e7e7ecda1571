"""RefCOCO's pickles and instances on pictures of stripes, and grounding on them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_masks

from pretrain.evaluate.benchmarks import refcoco
from pretrain.evaluate.benchmarks.base import LayoutError, Options
from pretrain.evaluate.benchmarks.dense import Region
from pretrain.evaluate.benchmarks.refcoco import read_refcoco, read_refcoco_plus, read_refcocog
from pretrain.evaluate.benchmarks.registry import BENCHMARKS
from pretrain.evaluate.grounding import evaluate, shrink
from pretrain.evaluate.pictures import heat_map
from recaption.common.config import UserError
from tests.pretrain.evaluate.benchmarks.colours import ColourEncoders, write_picture
from tests.pretrain.evaluate.benchmarks.vision_layouts import (
    REFCOCO_IMAGES,
    REFS,
    reference,
    write_pickle,
    write_refcoco,
)
from tests.pretrain.pickles import Touch

NUM_PUBLISHED = dict(refcoco._NUM_EXPRESSIONS)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The protocol has as many expressions as the tests write."""
    few = {"val": 3, "testA": 1}
    monkeypatch.setattr(refcoco, "_NUM_EXPRESSIONS", dict.fromkeys(NUM_PUBLISHED, few))


def test_a_split_without_all_expressions_is_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refcoco, "_NUM_EXPRESSIONS", NUM_PUBLISHED)
    write_refcoco(tmp_path)
    absent = r"1 missing in .*: 10,831 of 10,834 expressions of val in refs\(unc\)\.p"
    with pytest.raises(LayoutError, match=absent):
        read_refcoco(tmp_path, Options())
    coverage = read_refcoco(tmp_path, Options(allow_missing=True)).coverage
    assert (coverage.num_found, coverage.num_expected) == (3, 10_834)
    assert {name: set(splits) for name, splits in NUM_PUBLISHED.items()} == {
        name: set(BENCHMARKS[name].variants) for name in NUM_PUBLISHED
    }


def test_pictures_elsewhere_do_not_make_another_root_right(tmp_path: Path) -> None:
    """There the references are not, and from there this root would be advised again."""
    write_refcoco(tmp_path / "root")
    (tmp_path / "root" / "images").rename(tmp_path / "images")
    with pytest.raises(LayoutError, match=r"holds no folder .*; it holds refcoco/$"):
        read_refcoco(tmp_path / "root", Options())


def test_expressions_of_the_split_by_picture(tmp_path: Path) -> None:
    write_refcoco(tmp_path)
    data = read_refcoco(tmp_path, Options())
    assert data.sentences == [["the blue wall", "right"], ["red"]]
    assert data.images[0].name == str(REFCOCO_IMAGES / "COCO_train2014_000000000001.jpg")
    assert data.regions[0][1].mask()[:, 6:].all()
    assert not data.regions[0][1].mask()[:, :6].any()
    assert data.coverage.num_expected == data.coverage.num_found == 3
    assert read_refcoco(tmp_path, Options("testA")).sentences == [["the green wall"]]


def test_figures_by_hand(tmp_path: Path) -> None:
    write_refcoco(tmp_path)
    result = evaluate(read_refcoco(tmp_path, Options()), ColourEncoders(), batch_size=2)
    # "the blue wall": the quarter that is hot is the thing: IoU 1. "right" names no colour, so its
    # map is flat and all of it hot: 1/4. "red": a quarter is hot, the thing is a half: 1/2.
    assert result["num_sentences"] == 3
    assert result["miou"] == pytest.approx((1 + 1 / 4 + 1 / 2) / 3)
    assert result["whole_image"]["miou"] == pytest.approx((1 / 4 + 1 / 4 + 1 / 2) / 3)
    assert result["chance"]["pointing"] == pytest.approx((1 / 4 + 1 / 4 + 1 / 2) / 3)
    assert 0 < result["chance"]["miou"] < result["miou"]
    assert result["share_cut"] == 0
    again = evaluate(read_refcoco(tmp_path, Options()), ColourEncoders(), batch_size=1)
    assert again == result


def test_all_of_an_oblong_picture_is_seen(tmp_path: Path) -> None:
    """The encoders' own preprocessing cuts off top and bottom, where this thing is."""
    write_refcoco(tmp_path)
    path = tmp_path / REFCOCO_IMAGES / "COCO_train2014_000000000003.jpg"
    write_picture(path, "green", "red", "red", "red", size=(16, 8))
    Image.open(path).transpose(Image.Transpose.ROTATE_270).save(path, "PNG")  # green: the top
    instances = json.loads((tmp_path / "refcoco" / "instances.json").read_text())
    instances["annotations"][2]["segmentation"] = [[0.0, 0.0, 8.0, 0.0, 8.0, 4.0, 0.0, 4.0]]
    (tmp_path / "refcoco" / "instances.json").write_text(json.dumps(instances))
    result = evaluate(read_refcoco(tmp_path, Options("testA")), ColourEncoders(), batch_size=2)
    assert result["pointing"] == 1.0
    assert result["image_centre"]["pointing"] == 0.0
    assert result["miou"] > 0.45
    low, high = result["miou_interval"]
    assert low <= result["miou"] <= high


def test_plus_and_g_have_their_own_folders(tmp_path: Path) -> None:
    write_refcoco(tmp_path, "refcoco+")
    assert len(read_refcoco_plus(tmp_path, Options()).images) == 2
    with pytest.raises(LayoutError, match=r"refcocog/refs\(umd\)\.p"):
        read_refcocog(tmp_path, Options())
    write_refcoco(tmp_path, "refcocog", "refs(umd).p")
    assert len(read_refcocog(tmp_path, Options()).images) == 2


def test_missing_pictures_and_empty_expressions(tmp_path: Path) -> None:
    write_refcoco(tmp_path)
    (tmp_path / REFCOCO_IMAGES / "COCO_train2014_000000000001.jpg").unlink()
    with pytest.raises(LayoutError, match=r"COCO_train2014_000000000001\.jpg.*allow_missing=true"):
        read_refcoco(tmp_path, Options())
    data = read_refcoco(tmp_path, Options(allow_missing=True))
    assert data.sentences == [["red"]]
    assert (data.coverage.num_found, data.coverage.num_expected) == (1, 3)


def test_an_empty_expression_leaves_the_others_of_its_thing(tmp_path: Path) -> None:
    path = write_refcoco(tmp_path)
    write_pickle(path, [*REFS, reference(3, "val", "green", " "), reference(3, "val", "")])
    data = read_refcoco(tmp_path, Options(allow_missing=True))
    assert data.sentences == [["the blue wall", "right"], ["red"], ["green"]]
    assert [len(regions) for regions in data.regions] == [2, 1, 1]
    assert data.coverage.missing == [
        f"the text of refcoco/{path.name} reference 3 sentence 1",
        f"the text of refcoco/{path.name} reference 4 sentence 0",
    ]
    assert (data.coverage.num_found, data.coverage.num_expected) == (4, 6)
    with pytest.raises(LayoutError, match="2 missing in"):
        read_refcoco(tmp_path, Options())


def test_odd_files_are_named(tmp_path: Path) -> None:
    path = write_refcoco(tmp_path)
    write_pickle(path, [reference(9, "val", "a")])
    with pytest.raises(LayoutError, match=r"refs\(unc\)\.p reference 0 is about image 9"):
        read_refcoco(tmp_path, Options())
    write_pickle(path, REFS[2:])
    with pytest.raises(LayoutError, match="has no reference of the split val"):
        read_refcoco(tmp_path, Options())
    write_pickle(path, [Touch(tmp_path / "mark")])
    with pytest.raises(LayoutError, match=r"refs\(unc\)\.p asks for"):
        read_refcoco(tmp_path, Options())
    assert not (tmp_path / "mark").exists()
    write_refcoco(tmp_path)
    instances = tmp_path / "refcoco" / "instances.json"
    instances.write_text(instances.read_text()[:-5])
    with pytest.raises(LayoutError, match=r"instances\.json is damaged"):
        read_refcoco(tmp_path, Options())


def test_a_picture_of_another_size_than_its_masks(tmp_path: Path) -> None:
    write_refcoco(tmp_path)
    write_picture(
        tmp_path / REFCOCO_IMAGES / "COCO_train2014_000000000002.jpg", "red", size=(16, 32)
    )
    with pytest.raises(UserError, match=r"000000000002\.jpg is of 16 x 32 pixels.*annotation 102"):
        evaluate(read_refcoco(tmp_path, Options()), ColourEncoders(), batch_size=2)


def test_run_lengths_are_masks_too() -> None:
    mask = np.zeros((3, 4), np.uint8)
    mask[1:, 2] = 1
    packed = coco_masks.encode(np.asfortranarray(mask))
    for runs in ({"counts": [7, 2, 3], "size": [3, 4]}, packed):
        np.testing.assert_array_equal(Region("here", runs, 3, 4).mask(), mask.astype(bool))
    for bad in ([], [[1.0, 2.0]], {"counts": "x"}, {"size": [3, 4]}):
        with pytest.raises(LayoutError, match="here: its segmentation"):
            Region("here", bad, 3, 4).mask()
    with pytest.raises(LayoutError, match="of 4 x 3 pixels, its picture of 4 x 9"):
        Region("here", packed, 9, 4).mask()
    for counts in ([7, 2, 30], [7, -2, 7], [7, 2.5, 2.5], "zzzzzz~~~"):
        with pytest.raises(LayoutError, match="here: its segmentation is none"):
            Region("here", {"counts": counts, "size": [3, 4]}, 3, 4).runs()


@pytest.mark.parametrize("far", [1e15, -1e15, float("nan"), float("inf"), 10**40])
def test_polygons_that_would_end_the_process(far: float) -> None:
    for polygon in ([far, 0.0, 8.0, 0.0, 8.0, far], [0, 0, far, 0, 0, 1]):
        with pytest.raises(LayoutError, match=r"here: .*a polygon leads out of its picture"):
            Region("here", [polygon], 16, 8).mask()


def test_a_thing_without_a_pixel_is_no_thing(tmp_path: Path) -> None:
    """Such a mask had counted as the whole picture."""
    write_refcoco(tmp_path)
    path = tmp_path / "refcoco" / "instances.json"
    instances = json.loads(path.read_text())
    instances["annotations"][1]["segmentation"] = [[3, 3, 3, 3, 3, 3]]
    path.write_text(json.dumps(instances))
    told = "refcoco/instances.json annotation 102: its segmentation has no pixel"
    with pytest.raises(LayoutError, match=told):
        read_refcoco(tmp_path, Options())
    data = read_refcoco(tmp_path, Options(allow_missing=True))
    assert data.sentences == [["the blue wall", "right"]]
    assert data.coverage.missing == [told]
    assert data.coverage.notes == {"expressions whose thing has no mask": 1}
    assert (data.coverage.num_found, data.coverage.num_expected) == (2, 3)


def test_a_thing_smaller_than_a_pixel_of_the_map_is_one_pixel() -> None:
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[9, 9] = True
    assert shrink(mask, 8).nonzero().tolist() == [[1, 1]]
    mask[:, 32:] = True
    assert shrink(mask, 8)[:, 4:].all()


def test_a_model_without_maps_is_told(tmp_path: Path) -> None:
    write_refcoco(tmp_path)

    class Blind(ColourEncoders):
        def localise(self, images: Any, sentences: Any) -> None:
            return None

    with pytest.raises(UserError, match="colours makes no maps"):
        evaluate(read_refcoco(tmp_path, Options()), Blind(), batch_size=2)


def test_a_model_of_nan_finds_nothing(tmp_path: Path) -> None:
    class Broken(ColourEncoders):
        def localise(self, images: Any, sentences: Any) -> torch.Tensor:
            return super().localise(images, sentences) * float("nan")

    write_refcoco(tmp_path)
    result = evaluate(read_refcoco(tmp_path, Options()), Broken(), batch_size=2)
    assert result["miou"] == result["pointing"] == 0
    assert result["sentence_of_another_image"]["pointing"] == 0
    heat = torch.full((8, 8), float("nan"))
    assert heat_map(torch.zeros(3, 8, 8, dtype=torch.uint8), heat, [], 8).size == (8, 8)


def test_one_picture_has_no_other(tmp_path: Path) -> None:
    """Its own sentence had stood for that of another."""
    write_refcoco(tmp_path)
    result = evaluate(read_refcoco(tmp_path, Options("testA")), ColourEncoders(), batch_size=2)
    assert result["num_images"] == 1
    assert "sentence_of_another_image" not in result
