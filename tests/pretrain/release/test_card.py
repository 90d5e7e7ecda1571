"""What a card says of imported weights, of code, and of odd names and numbers."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pretrain.inference import load_for_inference
from pretrain.release import command
from pretrain.release.card import write_card
from pretrain.release.evaluation import Figures
from pretrain.release.facts import Given, gather_facts
from recaption.common.config import ConfigError, UserError
from tests.pretrain.untrained import TINY_CLIP, write_run

CODE = {"version": "0.1", "commit": "a" * 40, "torch": "2.9"}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", TINY_CLIP)


def card_of(run: Path, figures: Figures | None = None, **given: str) -> str:
    inference = load_for_inference(run)
    facts = gather_facts(run, inference, Given(**given))
    return write_card(facts, inference.config, figures or Figures())


def front_matter(card: str) -> dict[str, Any]:
    _, text, _ = card.split("---\n", 2)
    read: dict[str, Any] = yaml.safe_load(text)
    return read


def test_nothing_of_this_trainer_is_said_of_imported_weights(run: Path) -> None:
    trained = card_of(run)
    assert "No data card of the training shards was found when this was released" in trained
    assert "pretrained on long captions with the CLIP objective" in trained
    assert front_matter(trained)["tags"] == ["vision-language", "long-captions", "clip"]
    assert "| seed | 0 |" in trained and "| precision | unknown |" not in trained
    (run / "checkpoints" / "step-00000007" / "state.json").unlink()  # as an import leaves none
    imported = card_of(run)
    assert "long captions" not in imported
    assert front_matter(imported)["tags"] == ["vision-language", "clip"]
    assert "| weights | imported |" in imported
    assert "data card" not in imported and "What these weights were trained on is unkn" in imported
    for row in ("learning rate, weight decay", "precision", "seed", "code"):
        assert f"| {row} | unknown |" in imported


def test_the_code_is_that_of_the_trainer(run: Path) -> None:
    assert "| code | unknown |" in card_of(run)
    parts = [
        {"after_step": step, **CODE, "torch": torch} for step, torch in ((0, "2.8"), (5, "2.9"))
    ]
    later = {"after_step": 7, **CODE, "torch": "3.0"}  # of no step of this checkpoint
    (run / "code.json").write_text(json.dumps([*parts, later]))
    card, by = card_of(run), f"Canopy 0.1, commit {'a' * 40}, torch"
    assert f"| code | {by} 2.8; after step 5 {by} 2.9 |" in card
    assert "Released with Canopy " in card
    (run / "code.json").write_text(json.dumps(parts[1:]))
    assert f"| code | up to step 5 unknown; after step 5 {by} 2.9 |" in card_of(run)


def test_what_was_given_cannot_break_the_page(run: Path) -> None:
    card = card_of(run, licence="of us: see file", hardware="a | b\nc", name='x"y')
    assert front_matter(card)["license"] == "of us: see file"
    assert r"| hardware | a \| b c |" in card
    assert r'pretrain.load("x\"y")' in card


@pytest.mark.parametrize("licence", ["CC BY-NC 4.0: see file", "Apache-2.0", "a\nb"])
def test_a_licence_is_written_as_the_hub_does(licence: str) -> None:
    with pytest.raises(ConfigError, match="give it as the hub writes it"):
        command.ReleaseConfig("run", licence=licence)
    command.ReleaseConfig("run", licence="cc-by-nc-4.0")


def test_a_name_is_no_folder_above_nor_a_hidden_one() -> None:
    for name in ("..", ".mine"):
        with pytest.raises(ConfigError, match="becomes a folder that is not hidden"):
            command.ReleaseConfig("run", name=name)


def evaluation_of(run: Path, recall: float) -> dict[str, Any]:
    way = {"r1": recall, "r5": 0.5, "r10": 1.0, "median_rank": 2.0}
    both = {"text_to_image": way, "image_to_text": way}
    weights = gather_facts(run, load_for_inference(run), Given()).weights
    return {
        "checkpoint": weights,
        "image_size": 32,
        "retrieval": {"num_images": 9, "alpha": None, "chance": both, "columns": {"score": both}},
        "captions": {"source": "long", "share_cut": 0.0, "context_length": 32},
        "localisation": None,
        "data": {"folder": "boxes"},
        "summary": {"t2i_r1": recall},
    }


def test_a_figure_that_is_no_number_is_remarked(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "open_in_fresh_process", lambda folder: {})
    (run / "evaluation.json").write_text(json.dumps(evaluation_of(run, float("nan"))))
    command.main([f"run={run}", f"output={tmp_path / 'released'}"])
    card = (tmp_path / "released" / "README.md").read_text()
    assert "| score | not a number | 50.0 % |" in card and "nan" not in card
    warned = capsys.readouterr().err
    assert (
        "warning: evaluation.json: retrieval.columns.score.text_to_image.r1 is not a number"
        in warned
    )


def test_figures_of_another_form_are_an_error_of_the_user(run: Path) -> None:
    evaluation = evaluation_of(run, 0.25)
    assert "| score | 25.0 % |" in card_of(run, Figures(evaluation=evaluation))
    del evaluation["captions"]["share_cut"]
    with pytest.raises(UserError, match=r"evaluation\.json .*share_cut.*: evaluate again"):
        card_of(run, Figures(evaluation=evaluation))
