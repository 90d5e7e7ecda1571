"""ImageNet, ImageNet-V2 and ImageNet-O as folders of classes."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pretrain.evaluate.benchmarks.base import LayoutError, Options, Picture
from pretrain.evaluate.benchmarks.imagenet import (
    class_ids,
    class_names,
    read,
    read_o,
    read_v2,
    templates,
)
from recaption.common.config import UserError
from tests.pretrain.evaluate.benchmarks.colours import write_picture

SOME = Options(allow_missing=True)


def _link_folders(folder: Path, picture: Path, names: list[str], count: int = 1) -> None:
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            os.link(picture, folder / name / f"ILSVRC2012_val_{number:08d}.JPEG")


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    write_picture(tmp_path / "one.JPEG", "red")
    return tmp_path / "one.JPEG"


def test_names_and_prompts_are_the_published_ones() -> None:
    by_id = dict(zip(class_ids(), class_names(), strict=True))
    assert len(by_id) == 1000
    assert by_id["n01440764"] == "tench"
    assert by_id["n02110185"] == "Siberian Husky"
    assert by_id["n15075141"] == "toilet paper"
    assert len(set(templates())) == 80
    assert "a photo of a {}." in templates()
    assert all(template.count("{}") == 1 for template in templates())


def test_the_whole_set_in_either_root(tmp_path: Path, picture: Path) -> None:
    _link_folders(tmp_path / "imagenet" / "val", picture, list(class_ids()))
    data = read(tmp_path / "imagenet", Options(), num_per_class=1)
    assert data.labels == list(range(1000))
    assert data.images[999].name == "val/n15075141/ILSVRC2012_val_00000000.JPEG"
    assert data.coverage.num_expected == 1000
    assert data.coverage.missing == []
    assert len(read(tmp_path / "imagenet" / "val", Options(), num_per_class=1).images) == 1000


def test_missing_classes_and_images_are_named(tmp_path: Path, picture: Path) -> None:
    _link_folders(tmp_path / "val", picture, ["n01440764", "n15075141"], 2)
    with pytest.raises(LayoutError, match=r"48 of 50 images of n01440764/.*allow_missing=true"):
        read(tmp_path, Options())
    data = read(tmp_path, SOME)
    assert data.labels == [0, 0, 999, 999]
    assert data.coverage.num_expected == 50_000
    assert len(data.coverage.missing) == 1000


def test_more_images_of_a_class_than_there_are_is_another_set(
    tmp_path: Path, picture: Path
) -> None:
    """The set for training had been scored with leave, and full classes hid absent ones."""
    _link_folders(tmp_path / "train", picture, ["n01440764", "n15075141"], 51)
    for options in (Options(), SOME):
        with pytest.raises(
            LayoutError, match=r"n01440764 has 51 images, more than .* 50"
        ) as caught:
            read(tmp_path / "train", options)
        assert "allow_missing" not in str(caught.value)
    _link_folders(tmp_path / "o", picture, list(class_ids()[:3]), 667)
    with pytest.raises(LayoutError, match="2,001 images, more than the protocol's 2,000") as caught:
        read_o(tmp_path / "o", SOME)
    assert "allow_missing" not in str(caught.value)


@pytest.mark.parametrize(
    ("reader", "below", "name"),
    [
        (read, "val", "n01440764"),
        (read_v2, "imagenetv2-matched-frequency-format-val", "7"),
        (read_o, "imagenet-o", "n01440764"),
    ],
)
def test_the_root_is_looked_for_nearby(
    reader: Callable, below: str, name: str, tmp_path: Path, picture: Path
) -> None:
    root = tmp_path / "some" / "where"
    _link_folders(root / below, picture, [name])
    with pytest.raises(LayoutError, match=f"give root={root}$"):
        reader(tmp_path / "some", SOME)
    with pytest.raises(LayoutError, match=f"give root={root / below}$"):
        reader(root / below / name, SOME)
    assert len(reader(root / below, SOME).images) == 1


def test_hidden_folders_are_no_classes(tmp_path: Path, picture: Path) -> None:
    _link_folders(tmp_path, picture, ["n01440764", ".ipynb_checkpoints"])
    assert read_o(tmp_path, SOME).classes == ["tench"]


def test_wrong_layouts(tmp_path: Path, picture: Path) -> None:
    with pytest.raises(LayoutError, match="no folders named by WordNet ids"):
        read(tmp_path, SOME)
    os.link(picture, tmp_path / "ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(LayoutError, match="in one heap: sort them"):
        read(tmp_path, SOME)
    (tmp_path / "set" / "val").mkdir(parents=True)
    os.link(picture, tmp_path / "set" / "val" / "ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(LayoutError, match="set/val holds the validation images in one heap"):
        read(tmp_path / "set", SOME)
    with pytest.raises(LayoutError, match="is no folder"):
        read(tmp_path / "absent", SOME)
    with pytest.raises(LayoutError, match="no folders 0 to 999"):
        read_v2(tmp_path, SOME)
    (tmp_path / "n00000001").mkdir()
    with pytest.raises(LayoutError, match="n00000001/, which is none of ImageNet's"):
        read_o(tmp_path, SOME)


def test_v2_folders_are_numbers_and_not_words(tmp_path: Path, picture: Path) -> None:
    folder = tmp_path / "imagenetv2-matched-frequency-format-val"
    _link_folders(folder, picture, ["0", "10", "2"])
    data = read_v2(tmp_path, SOME)
    assert data.labels == [0, 2, 10]
    assert data.classes[2] == "great white shark"
    assert read_v2(folder, SOME).labels == [0, 2, 10]
    with pytest.raises(LayoutError, match="another variant than the one asked for"):
        read_v2(folder, Options("top-images", allow_missing=True))


@pytest.mark.parametrize("root", ["link", ".", "links"])
def test_v2_by_a_link_or_from_within_is_the_variant_that_it_is(
    root: str, tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read as the usual variant, another one's figures had stood under its name."""
    folder = tmp_path / "imagenetv2-top-images-format-val"
    _link_folders(folder, picture, ["0"])
    monkeypatch.chdir(folder)
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "imagenetv2-matched-frequency-format-val").symlink_to(folder)
    given = Path() if root == "." else tmp_path / root
    with pytest.raises(LayoutError, match="imagenetv2-top-images-format-val, another variant"):
        read_v2(given, SOME)
    if root != "links":
        assert read_v2(given, Options("top-images", allow_missing=True)).labels == [0]


def test_o_has_the_classes_of_its_folders(tmp_path: Path, picture: Path) -> None:
    _link_folders(tmp_path / "imagenet-o", picture, ["n15075141", "n01440764"])
    data = read_o(tmp_path, SOME)
    assert data.classes == ["tench", "toilet paper"]
    assert data.labels == [0, 1]
    with pytest.raises(LayoutError, match=r"198 of 200 class folders, 1,998 of 2,000 images"):
        read_o(tmp_path, Options())


def test_more_classes_than_imagenet_o_has(tmp_path: Path) -> None:
    for name in class_ids()[:201]:
        (tmp_path / name).mkdir()
    with pytest.raises(LayoutError, match="has 201 class folders, ImageNet-O 200"):
        read_o(tmp_path, SOME)


def test_a_picture_that_is_none_is_named(tmp_path: Path, picture: Path) -> None:
    _link_folders(tmp_path / "val", picture, ["n01440764"])
    (tmp_path / "val" / "n01440764" / "cut.JPEG").write_bytes(b"\xff\xd8\xff")
    data = read(tmp_path, SOME)
    assert [image.path.name for image in data.images] == ["ILSVRC2012_val_00000000.JPEG"]
    assert "val/n01440764/cut.JPEG" in data.coverage.missing
    assert data.coverage.notes == {"pictures that cannot be opened": 1}
    with pytest.raises(UserError, match=r"cut\.JPEG cannot be opened.*allow_missing=true"):
        Picture(tmp_path, "val/n01440764/cut.JPEG").open()
