"""The command on small sets: its figures, its report, and the mistakes of users."""

import json
import re
from pathlib import Path

import pytest

from pretrain.evaluate import main
from pretrain.evaluate.curves import draw_curves
from recaption.common.config import UserError
from recaption.common.files import sha256_file
from tests.pretrain.trainruns import TINY
from tests.pretrain.untrained import TINY_CLIP, write_boxed_shards, write_run


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_boxed_shards(tmp_path_factory.mktemp("data") / "boxed-val", 20)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """An evaluated run of CAFT."""
    run = write_run(tmp_path_factory.mktemp("runs") / "caft")
    main([f"checkpoint={run}", f"data={data}", "num_samples=15", "source=long", "batch_size=4"])
    return run


@pytest.fixture(scope="module")
def clip_run(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    run = write_run(tmp_path_factory.mktemp("runs") / "clip", TINY_CLIP)
    (run / "metrics.jsonl").unlink()
    main([f"checkpoint={run}", f"data={data}", "num_samples=12", "num_pictures=3"])
    return run


def read(run: Path) -> dict:
    return json.loads((run / "evaluation.json").read_text())


def test_figures_stand_next_to_what_they_were_made_from(run: Path, data: Path) -> None:
    result = read(run)
    assert result["summary"]["num_images"] == 15
    assert result["summary"]["chance_r1"] == pytest.approx(1 / 15)
    blended = result["retrieval"]["columns"]["blended"]
    assert result["summary"]["t2i_r1"] == blended["text_to_image"]["r1"]
    assert result["summary"]["i2t_r1"] == blended["image_to_text"]["r1"]
    assert list(result["retrieval"]["columns"]) == ["blended", "whole", "local"]
    assert result["retrieval"]["alpha"] == 0.3
    weights = run / "checkpoints" / "step-00000007" / "model.safetensors"
    assert result["checkpoint"]["step"] == 7
    assert result["checkpoint"]["sha256"] == sha256_file(weights)
    shards = {path.name: sha256_file(path) for path in data.iterdir()}
    assert result["data"]["sha256"] == shards
    assert result["data"]["folder"] == "boxed-val"


def test_samples_without_a_caption_are_counted(run: Path) -> None:
    # Of the first 18 samples, those numbered 4, 9 and 14 have no caption of this source.
    assert read(run)["captions"]["num_samples_without"] == 3


def test_sentences_that_name_one_thing_are_localised(run: Path) -> None:
    found = read(run)["localisation"]
    assert (found["num_sentences"], found["num_images"]) == (15, 15)
    assert found["pointing_chance"] == pytest.approx(0.25 * 0.25, abs=0.01)
    assert found["by_size"].keys() == {"medium"}


def test_cut_captions_are_counted(tmp_path: Path, data: Path) -> None:
    run = write_run(tmp_path / "run", TINY.replace("context_length: 32", "context_length: 6"))
    arguments = [f"data={data}", "num_samples=4", "report=false"]
    main([f"checkpoint={run}", *arguments])
    assert read(run)["captions"]["share_cut"] == 1.0


def test_the_same_evaluation_gives_the_same_figures(run: Path, data: Path, tmp_path: Path) -> None:
    arguments = ["num_samples=15", "source=long", "batch_size=15", "report=false"]
    main([f"checkpoint={run}", f"data={data}", f"output={tmp_path}", *arguments])
    again = read(tmp_path)
    assert again["retrieval"] == read(run)["retrieval"]
    assert again["localisation"] == read(run)["localisation"]


def test_the_last_line_of_json_is_one_object(
    run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([f"checkpoint={run}", f"data={data}", f"output={tmp_path}", "report=false", "--json"])
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed["num_images"] == 20
    assert printed["evaluation"] == str(tmp_path / "evaluation.json")


def test_the_report_shows_everything_and_fetches_nothing(run: Path) -> None:
    page = (run / "report" / "report.html").read_text()
    for section in (
        "Training",
        "Retrieval",
        "Lost most badly",
        "Images and captions",
        "From parts to whole",
        "Where a sentence looks",
        "How it was measured",
    ):
        assert f">{section}<" in page
    for title in ("16 segments", "8 segments", "4 segments", "Loss", "Learning rate"):
        assert f">{title}<" in page
    assert "There is a red square" in page
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) > 30
    assert all(source.startswith("data:image/") for source in sources)
    assert not re.search(r"https?://|@import|url\(|<script", page)


def test_the_report_of_a_plain_model_leaves_out_what_it_has_not(clip_run: Path) -> None:
    page = (clip_run / "report" / "report.html").read_text()
    assert "From parts to whole" not in page
    assert ">Training<" not in page
    assert "Where a sentence looks" in page
    assert list(read(clip_run)["retrieval"]["columns"]) == ["score"]


def test_curves_have_a_panel_for_each_kind_of_metric(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    rows = [
        {"step": n, "loss": 1 / n, "whole": None, "part_scale": 2.0, "grad_norm": 1.0, "seconds": n}
        | {
            "left_seconds": 100 - n,
            "data_wait_share": 0.1,
            "save_share": 0.0,
            "cut_text_share": 0.5,
        }
        for n in range(1, 100)
    ]
    recall = {"t2i_r1": 0.5, "i2t_r1": 0.25, "loss": 2.0, "num_images": 500.0}
    rows.insert(50, {"step": 50, "validation": recall, "seconds": 50})
    metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    titles = [title for title, _ in draw_curves(metrics)]
    assert titles == [
        *(
            "Loss",
            "Validation: recall",
            "Validation: loss",
            "Logit scales and biases",
            "Gradient norm",
            "Shares of the ranks' time",
        ),
        "Share of cut texts and bad samples",
    ]
    assert draw_curves(tmp_path / "missing.jsonl") == []


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("source=lnog", r"'lnog'.*\['long', 'raw'\]"),
        ("data=/nowhere", "/nowhere"),
        ("checkpoint=/nowhere", "/nowhere"),
        ("num_smaples=5", "num_samples"),
    ],
)
def test_mistakes_are_named(run: Path, data: Path, argument: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        main([f"checkpoint={run}", f"data={data}", "report=false", argument])


def test_a_checkpoint_that_was_never_completed_is_an_error(tmp_path: Path, data: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "checkpoints" / "step-00000007" / "COMPLETE").unlink()
    for path in (run, run / "checkpoints" / "step-00000007"):
        with pytest.raises(UserError, match="COMPLETE"):
            main([f"checkpoint={path}", f"data={data}"])
