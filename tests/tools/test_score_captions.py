"""The scorer on captions whose score is known."""

import json
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recaption.common.config import UserError
from tests.places import RECAPTION_PYTHON, needs_recaption_environment
from tools.make_scenes import make_scene
from tools.make_scenes.__main__ import main as make_scenes
from tools.score_captions import colored_things, score_captions
from tools.score_captions.__main__ import main

TRUTH = {("house", "red"), ("ball", "blue")}
OTHER = {("fish", "green"), ("tree", "orange")}


@pytest.mark.parametrize(
    ("caption", "pairs"),
    [
        ("A large striped red house with a blue roof is on the left.", {("house", "red")}),
        ("There are two blue balls.", {("ball", "blue")}),
        ("The house, which is bright red, is large.", {("house", "red")}),
        ("A house is red and large.", {("house", "red")}),
        ("A violet automobile", {("car", "purple")}),
        ("A red, a green and a house", set()),
        ("On the green table is a checked yellow cup.", {("table", "green"), ("cup", "yellow")}),
        ("Below a house is a red ball.", {("ball", "red")}),
        ("A house. Red ball", {("ball", "red")}),
        ("the house that is red ball", {("ball", "red")}),
        ("", set()),
    ],
)
def test_mentions(caption: str, pairs: set[tuple[str, str]]) -> None:
    assert colored_things(caption) == pairs


def test_the_reference_description_names_exactly_the_truth() -> None:
    for index in range(300):
        scene = make_scene(1, "score", index)
        truth = {(thing.kind, thing.color) for thing in scene.layout.things}
        assert colored_things(scene.caption) == truth


@pytest.mark.parametrize(
    ("caption", "precision", "recall"),
    [
        ("A red house. A blue ball.", 1.0, 1.0),
        ("A red house. A green ball.", 0.5, 0.5),
        ("A blue house. A red ball.", 0.0, 0.0),
        ("A red house.", 1.0, 0.5),
        ("A red house. A blue ball. A pink star. A white cup.", 0.5, 1.0),
        ("vector art 4k", 0.0, 0.0),
    ],
)
def test_scores(caption: str, precision: float, recall: float) -> None:
    score = score_captions([caption, caption], [TRUTH, TRUTH])
    assert (score.precision, score.recall) == (precision, recall)


def test_the_control_scores_against_another_scene() -> None:
    captions = ["A red house. A blue ball.", "A green fish. An orange tree."]
    score = score_captions(captions, [TRUTH, OTHER])
    assert (score.precision, score.recall) == (1.0, 1.0)
    assert (score.control_precision, score.control_recall) == (0.0, 0.0)
    with pytest.raises(ValueError, match="at least two captions"):
        score_captions(captions[:1], [TRUTH])


def write_table(path: Path, rows: list[tuple[str, str | None, str]]) -> None:
    keys, captions, statuses = zip(*rows, strict=True)
    pq.write_table(pa.table({"key": keys, "caption": captions, "status": statuses}), path)


def test_tables_are_joined_to_scenes_by_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_scenes([f"output={tmp_path}", "num_scenes=4", "split=val"])
    captions = [make_scene(0, "val", index).caption for index in range(4)]
    rows: list[tuple[str, str | None, str]] = [
        (f"val-{index:07d}", captions[index], "ok") for index in reversed(range(4))
    ]
    write_table(tmp_path / "t.parquet", rows)
    main([f"tables={tmp_path}", f"shards={tmp_path}", "--json"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["precision"], result["recall"], result["num_captions"]) == (1.0, 1.0, 4)
    assert result["control_precision"] < 0.5

    write_table(tmp_path / "t.parquet", [*rows[:3], ("val-0000000", None, "failed")])
    main([f"tables={tmp_path}", f"shards={tmp_path}", "--json"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["recall"] < 1.0

    write_table(tmp_path / "t.parquet", [*rows, ("nobody", "A red house.", "ok")])
    with pytest.raises(UserError, match="nobody"):
        main([f"tables={tmp_path}", f"shards={tmp_path}"])


@pytest.mark.slow
@needs_recaption_environment
def test_the_captioner_of_the_repository_looks_through_vllm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """200 scenes that it was not trained on; on 500 it reaches what its README says."""
    shards, tables = tmp_path / "shards", tmp_path / "tables"
    make_scenes([f"output={shards}", "split=unseen", "num_scenes=200"])
    command = [str(RECAPTION_PYTHON), "-m", "recaption", "run"]
    subprocess.run([*command, f"input={shards}", f"output={tables}"], check=True)
    capsys.readouterr()
    main([f"tables={tables}", f"shards={shards}", "--json"])
    score = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert min(score["precision"], score["recall"]) > 0.9
    assert max(score["control_precision"], score["control_recall"]) < 0.1
