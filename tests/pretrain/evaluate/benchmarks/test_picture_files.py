"""Pictures that are damaged: told from their files, and passed over where they may be missing."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from pretrain.evaluate.benchmarks.base import Options, Picture
from pretrain.evaluate.benchmarks.picture_files import opens
from pretrain.evaluate.benchmarks.registry import BENCHMARKS
from pretrain.evaluate.benchmarks.segmentation import read_voc20
from recaption.common.config import UserError
from tests.pretrain.evaluate.benchmarks.layouts import WRITERS
from tests.pretrain.evaluate.benchmarks.vision_layouts import write_voc

SOME = Options(allow_missing=True)


def encoded(image_format: str, size: tuple[int, int] = (64, 48)) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(buffer, image_format)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("change", "is_whole"),
    [
        (lambda data: data, True),
        (lambda data: data + b"\0" * 100, True),  # padded: it is decoded to be sure
        (lambda data: data[: len(data) // 2], False),
        (lambda data: data[:20], False),
        (lambda data: b"", False),
        (lambda data: b"no picture" + data, False),
    ],
    ids=["whole", "padded", "half", "beginning", "empty", "none"],
)
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_files_are_told_apart(
    image_format: str, change: Callable[[bytes], bytes], is_whole: bool, tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes(change(encoded(image_format)))
    assert opens(Picture(tmp_path, "a.jpg")) == is_whole


def test_a_picture_beyond_the_limits_does_not_open(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded("PNG", (500, 1)))
    assert not opens(Picture(tmp_path, "a.png"))


@pytest.mark.parametrize("name", WRITERS)
def test_a_damaged_picture_is_passed_over_with_leave(name: str, tmp_path: Path) -> None:
    root = WRITERS[name](tmp_path)
    benchmark = BENCHMARKS[name]
    options = Options(next(iter(benchmark.variants)), allow_missing=True)
    damaged = benchmark.read(root, options).images[1]
    damaged.path.write_bytes(damaged.path.read_bytes()[:-30])
    rest = benchmark.read(root, options)
    assert rest.coverage.missing == [damaged.name]
    assert rest.coverage.notes["pictures that cannot be opened"] == 1
    assert damaged.name not in [image.name for image in rest.images]
    with pytest.raises(
        UserError, match=f"{damaged.path.name} cannot be opened.*allow_missing=true"
    ):
        damaged.open()


def test_labels_are_pictures_too(tmp_path: Path) -> None:
    base = write_voc(tmp_path, "2007_000033", "2007_000042")
    path = base / "SegmentationClass" / "2007_000033.png"
    path.write_bytes(path.read_bytes()[:-20])
    data = read_voc20(tmp_path, SOME)
    assert [image.path.stem for image in data.images] == ["2007_000042"]
    assert str(path.relative_to(tmp_path)) in data.coverage.missing


def test_damage_in_the_middle_is_told_without_wrong_advice(tmp_path: Path) -> None:
    """With allow_missing=true that alone does not help."""
    data = encoded("PNG", (200, 200))
    (tmp_path / "a.png").write_bytes(data[:41] + bytes(20) + data[61:])
    picture = Picture(tmp_path, "a.png")
    assert opens(picture)  # by its ends
    with pytest.raises(UserError, match=r"a\.png cannot be opened.* or take the file away"):
        picture.open()
