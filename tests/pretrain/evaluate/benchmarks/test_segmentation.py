"""VOC's and ADE20K's archives in small, and zero-shot segmentation on them."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pretrain.evaluate.benchmarks import segmentation
from pretrain.evaluate.benchmarks.base import Coverage, LayoutError, Options, Picture
from pretrain.evaluate.benchmarks.dense import LabelMap, SegmentationSet
from pretrain.evaluate.benchmarks.described import describe
from pretrain.evaluate.benchmarks.registry import BENCHMARKS
from pretrain.evaluate.benchmarks.segmentation import read_ade20k, read_voc20, voc_classes
from pretrain.evaluate.segmentation import (
    Windows,
    best_class,
    class_scores,
    cut,
    encode_windows,
    evaluate,
    starts,
    summarise,
)
from pretrain.models.features import ImageFeatures
from recaption.common.config import UserError
from tests.pretrain.evaluate.benchmarks.colours import ColourEncoders, write_picture
from tests.pretrain.evaluate.benchmarks.vision_layouts import (
    stripes,
    write_ade,
    write_labels,
    write_voc,
)

SOME = Options(allow_missing=True)
WINDOWS = Windows(short_side=16, size=8, stride=4)


def scores_of(image: Image.Image, classes: torch.Tensor) -> torch.Tensor:
    encoders = ColourEncoders()
    picture = cut(image, encoders, WINDOWS)
    return class_scores(picture, encode_windows([picture], encoders, 4), encoders, classes)


def test_figures_by_hand(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.jpg", "red", "green", "blue", "blue", size=(32, 16))
    write_labels(tmp_path / "a.png", stripes(8, 1, 2, 2, 0))  # the third is found as blue
    write_picture(tmp_path / "b.jpg", "red", size=(32, 16))
    write_labels(tmp_path / "b.png", stripes(16, 1, 255))
    data = SegmentationSet(
        images=[Picture(tmp_path, "a.jpg"), Picture(tmp_path, "b.jpg")],
        labels=[LabelMap(tmp_path / "a.png"), LabelMap(tmp_path / "b.png")],
        classes=["red", "green", "blue", "green and red"],
        templates=["a {}.", "{}"],
        coverage=Coverage(2),
    )
    result = evaluate(data, ColourEncoders(), 3, WINDOWS)
    # Pixels that count: 8 + 16 columns of red, 16 of green, of which 8 are found as blue.
    assert dict(result["iou_by_class"]) == pytest.approx({"red": 1.0, "green": 0.5, "blue": 0.0})
    assert result["miou"] == pytest.approx(0.5)
    # The second picture drawn twice, a quarter of the draws, has red alone, and finds it.
    assert result["miou_interval"] == pytest.approx((0.5, 1.0))
    assert result["pixel_accuracy"] == pytest.approx(32 / 40)
    assert result["num_classes_seen"] == 2
    assert result["commonest_class"] == pytest.approx({"miou": 0.3, "pixel_accuracy": 0.6})
    drawn = [share / 4 / (share + 1 / 4 - share / 4) for share in (0.6, 0.4)]
    assert result["chance"]["miou"] == pytest.approx(sum(drawn) / 4)  # the other two have 0
    assert evaluate(data, ColourEncoders(), 50, WINDOWS) == result


def test_windows_reach_the_edge_and_overlaps_are_averaged() -> None:
    assert starts(448, 224, 112) == [0, 112, 224]
    assert starts(500, 224, 112) == [0, 112, 224, 276]
    assert starts(224, 224, 112) == [0]
    pixels = np.random.default_rng(0).integers(1, 256, (16, 20, 3), dtype=np.uint8)
    classes = torch.nn.functional.normalize(torch.rand(2, 3), dim=1)
    scores = scores_of(Image.fromarray(pixels), classes)
    # A window of 8 pixels is what these encoders see, so that all windows agree on a pixel.
    colours = torch.nn.functional.normalize(torch.from_numpy(pixels).float(), dim=2)
    torch.testing.assert_close(scores, torch.einsum("cd,hwd->chw", classes, colours))


def test_small_pictures_are_enlarged_and_scores_brought_back(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.jpg", "red", "blue", size=(4, 4))
    image = Picture(tmp_path, "a.jpg").open()
    classes = torch.eye(3)
    scores = scores_of(image, classes)
    assert scores.shape == (3, 16, 16)
    assert best_class(scores, 4, 4).tolist() == [[0, 0, 2, 2]] * 4


def test_voc_ignores_the_background(tmp_path: Path) -> None:
    write_voc(tmp_path, "2007_000033")
    data = read_voc20(tmp_path, SOME)
    assert data.labels[0].read(20)[0].tolist() == [-1] * 4 + [0] * 4 + [-1] * 4 + [19] * 4
    assert (data.classes[0], data.classes[19], len(data.classes)) == ("aeroplane", "tv monitor", 20)
    assert data.coverage.num_expected == 1449
    with pytest.raises(LayoutError, match=r"1,448 of 1,449 lines of val\.txt"):
        read_voc20(tmp_path, Options())
    assert len(read_voc20(tmp_path / "VOCdevkit" / "VOC2012", SOME).images) == 1
    assert "person" in voc_classes()


def test_hidden_files_are_no_pictures_of_ade20k(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They had raised the number of pictures that were expected."""
    monkeypatch.setattr(segmentation, "_NUM_ADE20K", 1)
    base = write_ade(tmp_path, "ADE_val_00000001")
    (base / "images" / "validation" / "._ADE_val_00000001.jpg").write_bytes(b"Mac OS X")
    (base / "annotations" / "validation" / "._ADE_val_00000001.png").write_bytes(b"Mac OS X")
    coverage = read_ade20k(tmp_path, Options()).coverage
    assert (coverage.num_found, coverage.num_expected, coverage.missing) == (1, 1, [])


def test_ade20k_is_looked_for_nearby(tmp_path: Path) -> None:
    base = write_ade(tmp_path, "ADE_val_00000001")
    with pytest.raises(LayoutError, match=f"give root={base}$"):
        read_ade20k(base / "images", SOME)
    (base / "objectInfo150.txt").rename(tmp_path / "objectInfo150.txt")
    with pytest.raises(LayoutError, match=r"holds no objectInfo150\.txt; it holds annotations/"):
        read_ade20k(tmp_path, SOME)  # the root is right: no other one is advised


def test_more_lines_than_the_protocol_has_are_another_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmentation, "_NUM_VOC", 1)
    write_voc(tmp_path, "2007_000033", "2007_000042")
    for options in (Options(), SOME):
        with pytest.raises(LayoutError, match="2 images, more than the protocol's 1: is it"):
            read_voc20(tmp_path, options)


def test_voc_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"ImageSets/Segmentation/val\.txt"):
        read_voc20(tmp_path, SOME)
    base = write_voc(tmp_path, "2007_000033", "2007_000042", "2007_000042")
    (base / "SegmentationClass" / "2007_000033.png").unlink()
    data = read_voc20(tmp_path, SOME)
    assert "VOCdevkit/VOC2012/SegmentationClass/2007_000033.png" in data.coverage.missing
    assert data.coverage.notes == {"lines repeated": 1}
    assert len(data.images) == 1


def test_labels_are_among_what_figures_were_made_from(tmp_path: Path) -> None:
    base = write_voc(tmp_path, "2007_000033")
    path = base / "SegmentationClass" / "2007_000033.png"

    def inputs() -> dict[str, Any]:
        described: dict[str, Any] = describe(
            BENCHMARKS["voc20"], "val", read_voc20(tmp_path, SOME)
        )["inputs"]
        return described

    before = inputs()
    assert (before["labels"]["num_files"], before["labels"]["num_bytes"]) == (
        1,
        path.stat().st_size,
    )
    write_labels(path, stripes(8, 1, 2))
    after = inputs()
    assert after["labels"] != before["labels"]
    assert after["pictures"] == before["pictures"]


def test_ade20k_takes_names_from_the_archive(tmp_path: Path) -> None:
    base = write_ade(tmp_path, "ADE_val_00000001", "ADE_val_00000002")
    (base / "images" / "validation" / "ADE_val_00000002.jpg").unlink()
    data = read_ade20k(tmp_path, SOME)
    assert (data.classes[0], data.classes[149]) == ("thing 1", "thing 150")
    assert data.labels[0].read(150)[0].tolist() == [-1] * 8 + [149] * 8
    missing = "ADEChallengeData2016/images/validation/ADE_val_00000002.jpg"
    assert missing in data.coverage.missing
    with pytest.raises(LayoutError, match="1,998 of 2,000 images"):
        read_ade20k(tmp_path, Options())
    (base / "objectInfo150.txt").write_text("1 0.1 1 1 1 wall\n")
    with pytest.raises(LayoutError, match=r"objectInfo150\.txt names 1 classes, not 150"):
        read_ade20k(tmp_path, SOME)


def test_labels_that_are_none_are_named(tmp_path: Path) -> None:
    base = write_voc(tmp_path, "2007_000033")
    data = read_voc20(tmp_path, SOME)
    path = base / "SegmentationClass" / "2007_000033.png"
    write_labels(path, stripes(16, 21))
    with pytest.raises(UserError, match=r"2007_000033\.png has the label 21, of 20 classes"):
        evaluate(data, ColourEncoders(), 4, WINDOWS)
    write_labels(path, stripes(8, 1))
    with pytest.raises(UserError, match=r"2007_000033\.png is of 8 x 16 pixels, its picture"):
        evaluate(data, ColourEncoders(), 4, WINDOWS)
    write_picture(path, "red")
    with pytest.raises(UserError, match="is a RGB picture: labels are one value a pixel"):
        evaluate(data, ColourEncoders(), 4, WINDOWS)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"2007_000033\.png"):
        evaluate(data, ColourEncoders(), 4, WINDOWS)
    with pytest.raises(UserError, match="no pixel of the labels has a class"):
        summarise(torch.zeros(1, 3, 2, dtype=torch.float64), ["a", "b"])


def test_a_model_of_nan_finds_nothing(tmp_path: Path) -> None:
    """All of it had been found as the first class."""

    class Broken(ColourEncoders):
        def compare_places(self, images: Any, sentences: Any) -> torch.Tensor:
            return super().compare_places(images, sentences) * float("nan")

    write_voc(tmp_path, "2007_000033")
    result = evaluate(read_voc20(tmp_path, SOME), Broken(), 4, WINDOWS)
    assert result["miou"] == result["pixel_accuracy"] == 0


def test_batches_are_filled_from_several_pictures(tmp_path: Path) -> None:
    """Of 40 pictures of nine windows, 16 share their batches, whatever the number of ranks."""
    sizes = []

    class Counting(ColourEncoders):
        def encode_images(self, pixels: Any) -> ImageFeatures:
            sizes.append(len(pixels))
            return super().encode_images(pixels)

    write_picture(tmp_path / "a.jpg", "red", "green")
    write_labels(tmp_path / "a.png", stripes(8, 1, 2))
    data = SegmentationSet(
        images=[Picture(tmp_path, "a.jpg")] * 40,
        labels=[LabelMap(tmp_path / "a.png")] * 40,
        classes=["red", "green"],
        templates=["a {}", "one two three four five six seven eight {}"],
        coverage=Coverage(40),
    )
    result = evaluate(data, Counting(), 100, WINDOWS)
    assert result["miou"] == 1
    assert result["share_cut"] == 0.5
    assert sizes == [1, 100, 44, 100, 44, 72]  # the first shows what the model can do


def test_labels_of_too_many_pixels_are_named(tmp_path: Path) -> None:
    """Pillow's own limit raises an error of another kind than its others."""
    base = write_voc(tmp_path, "2007_000033")
    path = base / "SegmentationClass" / "2007_000033.png"
    png = path.read_bytes()
    header = b"IHDR" + struct.pack(">II", 60_000, 60_000) + png[24:29]
    path.write_bytes(png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:])
    with pytest.raises(UserError, match=r"2007_000033\.png cannot be opened: .*exceeds limit"):
        LabelMap(path).read(20)
