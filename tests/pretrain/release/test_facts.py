"""What is read from a run and its training shards."""

import json
from pathlib import Path

import pytest

from pretrain.inference import load_for_inference
from pretrain.release.card import write_card
from pretrain.release.evaluation import Figures, matching_figures
from pretrain.release.facts import Given, Training, gather_facts
from pretrain.release.training_data import describe_training_data, last_names, read_data_card
from tests.pretrain.untrained import TINY_CLIP, write_run
from tests.recaption.pack.packing import pack_shards, prepare
from tests.recaption.shard_files import sample


def test_the_card_of_packed_shards_without_the_folders(tmp_path: Path) -> None:
    members = [m for n in range(8) for m in sample(f"k{n}", n, ["Two words, here.", "And more."])]
    prepare(tmp_path, [*members, ("bad.jpg", b"")])
    pack_shards(tmp_path, "licences=[CC BY 4.0 (images)]", "val_share=0.4")
    packed = str(tmp_path / "packed" / "train")
    data = describe_training_data(packed, "CC3M")
    written = json.loads((tmp_path / "packed" / "data_card.json").read_text())
    assert data.num_samples == written["splits"]["train"]["num_samples"] < 8
    assert data.num_captions == {"existing": data.num_samples, "raw": data.num_samples}
    assert data.num_quarantined == 1
    assert data.licences == ["CC BY 4.0 (images)"]
    assert data.captioners["existing"] == "existing"
    card = read_data_card(packed)
    assert card is not None and str(tmp_path) in json.dumps(written)
    assert str(tmp_path) not in json.dumps(card)
    assert card["input"] == {"shards": "in", "tables": "tables"}
    assert card["sources"][1]["folder"] == "tables"
    assert {**card, "input": 0, "sources": 0} == {**written, "input": 0, "sources": 0}

    run = write_run(tmp_path / "run", TINY_CLIP, f"data.train={packed}")
    inference = load_for_inference(run)
    facts = gather_facts(run, inference, Given())
    text = write_card(facts, inference.config, matching_figures(run, inference.config, {}))
    assert "- Data: CC BY 4.0 (images)" in text
    assert "raw: none: the alt texts of the web shards; existing: existing" in text
    assert "Unknown: the run has not been evaluated." in text
    assert "Unknown: no benchmark was run." in text


def test_a_run_on_a_part_of_its_samples(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", TINY_CLIP, "data.num_samples=1000")
    inference = load_for_inference(run)

    def card() -> str:
        facts = gather_facts(run, inference, Given())
        assert facts.data.num_samples == 1000 and facts.data.num_captions == {}
        return write_card(facts, inference.config, Figures())

    assert "| training samples | the first 1,000 of unknown |" in card()
    (run / "train").mkdir()
    summary = {"num_samples": 4999, "num_quarantined": 7, "sources": {"raw": 4999}}
    (run / "train" / "pack.json").write_text(json.dumps({"summary": summary}))
    assert "| training samples | the first 1,000 of 4,999 |" in card()
    assert "| captions by source | unknown |" in card()
    whole = describe_training_data(str(run / "train"), None, 4999)
    assert whole == describe_training_data(str(run / "train"), None)
    assert whole.num_captions == {"raw": 4999}


def test_a_card_above_that_is_of_other_shards_is_not_theirs(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    card = {"splits": {"all": {}}, "input": {}, "sources": []}
    (tmp_path / "data_card.json").write_text(json.dumps(card))
    assert read_data_card(str(tmp_path / "train")) is None
    assert read_data_card(str(tmp_path)) == card


def test_a_licence_that_nobody_told_is_none() -> None:
    assert describe_training_data("s3://bucket/train", None).licences == []
    assert last_names("/sets/a/*.tar,s3://sets/b") == "*.tar,b"


def test_hours_are_those_of_the_steps_that_were_kept(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", TINY_CLIP, "data.batch_size=4")
    rows = [
        {"step": 3, "loss": 9.0, "samples_per_second": 2.0},
        {"step": 7, "loss": 5.0, "samples_per_second": 4.0},
        {"step": 9, "loss": 4.0, "samples_per_second": 4.0},  # behind the released checkpoint
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    inference = load_for_inference(run)
    state = {"step": 7, "num_samples_seen": 56, "global_batch": 8, "num_ranks": 2}
    (inference.source / "state.json").write_text(json.dumps(state))
    training = gather_facts(run, inference, Given(hardware="1 x A100")).training
    seconds = 3 * 8 / 2 + 4 * 8 / 4
    assert training.hours == pytest.approx(seconds / 3600)
    assert (training.step, training.final_loss, training.num_ranks) == (7, 5.0, 2)
    inference.config.train.begin_from = "trunk/checkpoints/step-00000003"
    assert gather_facts(run, inference, Given()).training.hours is None
    inference.config.train.begin_from = ""
    inference.config.train.log_every = 2  # the first row is of step 3: one is missing
    assert gather_facts(run, inference, Given()).training.hours is None
    inference.config.train.log_every = 3
    (run / "metrics.jsonl").write_text(json.dumps(rows[0]) + "\n")  # cut off before step 7
    assert gather_facts(run, inference, Given()).training.hours is None
    (inference.source / "state.json").unlink()  # as an imported run has none
    unknown = Training(None, None, None, None, None, "1 x A100", None)
    facts = gather_facts(run, inference, Given(hardware="1 x A100"))
    assert facts.training == unknown
    assert facts.name == "CLIP-w24d1-8-run"


def test_ranks_are_those_that_wrote_the_checkpoint(tmp_path: Path) -> None:
    """The configuration is that of the last resumption, with another share of the batch a rank."""
    run = write_run(tmp_path / "run", TINY_CLIP, "data.batch_size=4")
    inference = load_for_inference(run)
    assert gather_facts(run, inference, Given()).training.num_ranks is None  # older: not written
    state = {"step": 7, "num_samples_seen": 56, "global_batch": 8, "num_ranks": 8}
    (inference.source / "state.json").write_text(json.dumps(state))
    assert gather_facts(run, inference, Given()).training.num_ranks == 8
