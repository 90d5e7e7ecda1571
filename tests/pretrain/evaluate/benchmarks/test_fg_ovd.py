"""FG-OVD's JSON lines on crops of COCO pictures."""

import json
from pathlib import Path
from typing import Any

import pytest

from pretrain.evaluate.benchmarks.base import LayoutError, Options
from pretrain.evaluate.benchmarks.described import describe
from pretrain.evaluate.benchmarks.fg_ovd import read
from pretrain.evaluate.benchmarks.registry import BENCHMARKS
from pretrain.evaluate.benchmarks.table import title_lines
from pretrain.evaluate.choice import evaluate
from recaption.common.config import UserError
from tests.pretrain.evaluate.benchmarks.colours import ColourEncoders, write_picture

HARD = Options("hard")
SOME = Options("hard", allow_missing=True)
FILE = "1_attributes_llava.jsonl"


HATS = tuple(f"hat {number}" for number in range(10))


def _row(image: str, box: list[float], right: Any, *wrong: Any) -> dict[str, Any]:
    """With ten wrong expressions, the last of them hats, which have no colour; or with none."""
    ten = [*wrong, *HATS[len(wrong) :]] if wrong else []
    return {"img_path": image, "bbox": box, "pos_expression": right, "neg_expression": ten}


def _write(root: Path, *rows: Any) -> Path:
    write_picture(root / "val2017" / "000000000001.jpg", "red", "green")
    path = root / FILE
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


GOOD = _row("/val2017/000000000001.jpg", [8.0, 0.0, 8.0, 16.0], ["a green bag"], "a red bag")


def test_crops_and_expressions(tmp_path: Path) -> None:
    whole = _row("coco/val2017/000000000001.jpg", [0, 0, 16, 16], "a blue bag", "a red bag")
    _write(tmp_path, GOOD, whole)
    data = read(tmp_path, HARD)
    assert data.images[0].box == (8, 0, 8, 16)
    assert data.images[0].open().getcolors() == [(128, (0, 255, 0))]
    assert data.choices == [
        ("a green bag", "a red bag", *HATS[1:]),
        ("a blue bag", "a red bag", *HATS[1:]),
    ]
    assert data.groups == ["hard", "hard"]
    assert data.coverage.num_expected == 2
    result = evaluate(data, ColourEncoders(), batch_size=8)
    assert result["accuracy"] == 0.5
    assert result["chance"]["accuracy"] == pytest.approx(1 / 11)


def test_the_variant_chooses_the_file(tmp_path: Path) -> None:
    _write(tmp_path, GOOD).rename(tmp_path / "shuffle_negatives_llava.jsonl")
    assert read(tmp_path, Options("trivial")).groups == ["trivial"]
    with pytest.raises(LayoutError, match=r"1_attributes_llava\.jsonl"):
        read(tmp_path, Options("hard"))


def test_all_four_difficulties(tmp_path: Path) -> None:
    (tmp_path / "fgovd_json").mkdir()
    for name in ("1_attributes", "2_attributes", "3_attributes", "shuffle_negatives"):
        path = _write(tmp_path, GOOD)
        path.rename(tmp_path / "fgovd_json" / f"{name}_llava.jsonl")
    data = read(tmp_path, Options())
    assert data.groups == ["hard", "medium", "easy", "trivial"]
    assert len(data.coverage.inputs) == data.coverage.num_expected == 4
    (tmp_path / "fgovd_json" / "3_attributes_llava.jsonl").unlink()
    with pytest.raises(LayoutError, match=r"3_attributes_llava\.jsonl \(easy\).*allow_missing"):
        read(tmp_path, Options())
    data = read(tmp_path, Options(allow_missing=True))
    assert data.groups == ["hard", "medium", "trivial"]
    # How many lines the absent file has is not known.
    described = describe(BENCHMARKS["fg-ovd"], "all", data)
    assert described["coverage"]["share"] is described["coverage"]["num_expected"] is None
    assert title_lines(described | {"figures": {}}) == [
        "FG-OVD all: an unknown share of it, not to be compared with all of it; 1 missing"
    ]


@pytest.mark.parametrize("number", [2, 9, 11])
def test_other_numbers_of_wrong_expressions_are_another_task(number: int, tmp_path: Path) -> None:
    other = GOOD | {"neg_expression": [f"hat {n}" for n in range(number)]}
    _write(tmp_path, GOOD, other)
    with pytest.raises(LayoutError, match=rf"10 wrong expressions in 1 of 2 lines of {FILE}; all"):
        read(tmp_path, HARD)
    data = read(tmp_path, SOME)
    assert [len(texts) for texts in data.choices] == [11, 1 + number]
    assert data.coverage.num_expected is None
    assert data.coverage.notes == {"lines with more or fewer than 10 wrong expressions": 1}


def test_repeated_rows_and_right_texts_among_wrong_ones_are_counted(tmp_path: Path) -> None:
    tie = _row("val2017/000000000001.jpg", [0, 0, 8, 16], "a red bag", "a red bag")
    _write(tmp_path, GOOD, GOOD, tie)
    data = read(tmp_path, HARD)
    assert data.coverage.num_expected == len(data.images) == 3  # as FG-CLIP's script counts
    assert data.coverage.notes == {
        "rows that were there before": 1,
        "right texts among the wrong ones": 1,
    }
    assert evaluate(data, ColourEncoders(), batch_size=8)["accuracy"] == 2 / 3  # a tie is wrong


def test_half_a_character_is_counted_and_written_as_one_that_is_not_known(tmp_path: Path) -> None:
    _write(tmp_path, GOOD | {"pos_expression": "a green bag \ud83d"})
    data = read(tmp_path, HARD)
    assert data.choices[0][0] == "a green bag \ufffd"
    assert data.coverage.notes == {"texts with half a character": 1}


def test_missing_pictures_and_empty_texts(tmp_path: Path) -> None:
    absent = GOOD | {"img_path": "/val2017/000000000002.jpg"}
    path = _write(tmp_path, GOOD, absent, _row("val2017/000000000001.jpg", [0, 0, 8, 8], "a", " "))
    with pytest.raises(LayoutError, match=r"val2017/000000000002\.jpg.*allow_missing=true"):
        read(tmp_path, HARD)
    data = read(tmp_path, SOME)
    assert (len(data.images), data.coverage.num_expected) == (1, 3)
    assert data.coverage.missing == ["val2017/000000000002.jpg", f"the text of {path.name}, line 3"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"img_path": "val2017/000000000001.jpg"}, "line 1 has no field 'bbox'"),
        (_row("../secret.jpg", [0, 0, 1, 1], "a", "b"), "leads out of the root"),
        (_row("val2017/000000000001.jpg", [0, 0, 1], "a", "b"), "bbox is not x, y, width"),
        (_row("val2017/000000000001.jpg", [0, 0, 0, 1], "a", "b"), "bbox is empty"),
        (_row("val2017/000000000001.jpg", [0, 0, 10**400, 1], "a", "b"), "bbox is not x, y, w"),
        (_row("/val2017/../a.jpg", [0, 0, 1, 1], "a", "b"), "line 1: .*leads out of the root"),
        (_row("/", [0, 0, 1, 1], "a", "b"), "line 1: '' is no name of a file"),
        (_row("val2017/000000000001.jpg", [0, 0, 1, 1], "a"), "line 1: not one pos_expression"),
        (_row("val2017/000000000001.jpg", [0, 0, 1, 1], ["a", "b"], "c"), "not one pos_expression"),
        (_row("val2017/000000000001.jpg", [0, 0, 1, 1], "a", 3), "an expression is no text"),
        ([1], "line 1 is no JSON object"),
    ],
)
def test_odd_lines_are_named(tmp_path: Path, row: Any, message: str) -> None:
    _write(tmp_path, row)
    with pytest.raises(LayoutError, match=message) as error:
        read(tmp_path, SOME)
    assert FILE in str(error.value)


def test_a_truncated_file(tmp_path: Path) -> None:
    path = _write(tmp_path, GOOD, GOOD)
    path.write_text(path.read_text()[:-30])
    with pytest.raises(LayoutError, match=rf"{FILE}, line 2 is damaged"):
        read(tmp_path, HARD)


def test_boxes_are_held_against_the_picture(tmp_path: Path) -> None:
    """Beyond the ends a crop would be black, or larger than memory."""
    large = _row("val2017/000000000001.jpg", [0, 0, 20_000, 20_000], "a green bag", "a blue bag")
    edge = _row("val2017/000000000001.jpg", [-3.0, 15.8, 5.0, 3.0], "a red bag", "a blue bag")
    _write(tmp_path, large, edge)
    data = read(tmp_path, HARD)
    assert data.images[0].open().size == (16, 16)
    assert data.images[1].open().getcolors() == [(2, (255, 0, 0))]
    for beside in ([1000, 1000, 20, 20], [0, -9, 9, 9]):
        _write(tmp_path, _row("val2017/000000000001.jpg", beside, "a red bag", "a blue bag"))
        with pytest.raises(UserError, match=r"000000000001\.jpg is of 16 x 16 pixels, and its box"):
            evaluate(read(tmp_path, HARD), ColourEncoders(), batch_size=8)
