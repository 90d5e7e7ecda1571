"""SugarCrepe's seven files on COCO pictures."""

import json
from pathlib import Path

import pytest

from pretrain.evaluate.benchmarks import sugarcrepe
from pretrain.evaluate.benchmarks.base import LayoutError, Options
from pretrain.evaluate.benchmarks.sugarcrepe import KINDS, read
from pretrain.evaluate.choice import evaluate
from tests.pretrain.evaluate.benchmarks.colours import ColourEncoders
from tests.pretrain.evaluate.benchmarks.vision_layouts import write_sugarcrepe

NUM_PUBLISHED = dict(sugarcrepe._NUM_ENTRIES)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The protocol has as many entries as the tests write."""
    monkeypatch.setattr(sugarcrepe, "_NUM_ENTRIES", dict.fromkeys(KINDS, 1) | {"swap_att": 2})


def test_a_file_without_all_entries_is_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JSON that somebody cut down is whole JSON."""
    monkeypatch.setattr(sugarcrepe, "_NUM_ENTRIES", NUM_PUBLISHED)
    write_sugarcrepe(tmp_path)
    with pytest.raises(LayoutError, match=r"7 missing in .*: 691 of 692 entries of add_att\.json"):
        read(tmp_path, Options())
    coverage = read(tmp_path, Options(allow_missing=True)).coverage
    assert (coverage.num_found, coverage.num_expected) == (8, sum(NUM_PUBLISHED.values()))
    (tmp_path / "add_obj.json").unlink()
    assert read(tmp_path, Options(allow_missing=True)).coverage.num_expected == 7511


def test_accuracy_by_kind(tmp_path: Path) -> None:
    write_sugarcrepe(tmp_path)
    data = read(tmp_path, Options())
    assert data.coverage.num_expected == len(data.images) == 8
    result = evaluate(data, ColourEncoders(), batch_size=3)
    assert result["accuracy"] == 7 / 8
    assert result["by_group"] == dict.fromkeys(KINDS, 1.0) | {"swap_att": 0.5}
    assert result["mean_of_groups"] == pytest.approx(6.5 / 7)
    assert result["chance"]["accuracy"] == 0.5


def test_the_repository_s_folder_of_data(tmp_path: Path) -> None:
    write_sugarcrepe(tmp_path)
    (tmp_path / "data").mkdir()
    for kind in KINDS:
        (tmp_path / f"{kind}.json").rename(tmp_path / "data" / f"{kind}.json")
    assert len(read(tmp_path, Options()).images) == 8


def test_missing_files_and_pictures(tmp_path: Path) -> None:
    write_sugarcrepe(tmp_path)
    (tmp_path / "add_obj.json").unlink()
    with pytest.raises(LayoutError, match=r"add_obj\.json.*allow_missing=true"):
        read(tmp_path, Options())
    data = read(tmp_path, Options(allow_missing=True))
    assert "add_obj" not in data.groups
    assert data.coverage.missing == ["add_obj.json"]
    (tmp_path / "val2017" / "000000000001.jpg").unlink()
    with pytest.raises(LayoutError, match="nothing of it is in"):
        read(tmp_path, Options(allow_missing=True))
    with pytest.raises(LayoutError, match=r"add_att\.json"):
        read(tmp_path / "val2017", Options(allow_missing=True))


def test_repeated_and_empty_entries(tmp_path: Path) -> None:
    write_sugarcrepe(tmp_path)
    path = tmp_path / "add_att.json"
    entry = json.loads(path.read_text())["0"]
    path.write_text(json.dumps({"0": entry, "1": entry, "2": entry | {"caption": ""}}))
    data = read(tmp_path, Options(allow_missing=True))
    assert data.coverage.notes == {"entries that were there before": 1}
    assert data.coverage.missing == ["the text of add_att.json entry 2"]
    assert (len(data.images), data.coverage.num_expected) == (9, 10)  # as the authors' script


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"0": {"filename": "1.jpg", "capt', "is damaged: it is not JSON"),
        ("[]", "holds a list, not an object"),
        ('{"0": {"filename": "1.jpg"}}', "entry 0 has no field 'caption'"),
        ('{"0": {"filename": "../1.jpg"}}', "is no name of a file"),
    ],
)
def test_odd_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    write_sugarcrepe(tmp_path)
    (tmp_path / "replace_rel.json").write_text(text)
    with pytest.raises(LayoutError, match=message) as error:
        read(tmp_path, Options(allow_missing=True))
    assert "replace_rel.json" in str(error.value)
