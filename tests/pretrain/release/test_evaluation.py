"""Which figures go into a release: those of the very weights that are released."""

import json
from pathlib import Path
from typing import Any

import pytest

from pretrain.evaluate import main as evaluate
from pretrain.evaluate.provenance import describe_weights
from pretrain.inference import load_for_inference
from pretrain.release.card import write_card
from pretrain.release.command import _write
from pretrain.release.evaluation import Figures, matching_figures
from pretrain.release.facts import Given, gather_facts
from tests.pretrain.trainruns import TINY
from tests.pretrain.untrained import TINY_CLIP, write_boxed_shards, write_run

BOTH_WAYS = {"text_to_image": {"r1": 0.25}, "image_to_text": {"r1": 0.5}}
DOCCI = {
    "title": "DOCCI",
    "variant": "test",
    "coverage": {"share": 0.125, "num_samples": 625, "num_expected": 5000, "num_missing": 4375},
    "figures": {
        "columns": {"blended": BOTH_WAYS, "whole": BOTH_WAYS},
        "share_cut": 0.0625,
        "examples": {"found": [{"text": "a kite over /green/hills/afar"}]},
    },
}
CIFAR = {
    "title": "CIFAR-10",
    "variant": "",
    "coverage": {"share": 1.0, "num_samples": 10000, "num_expected": 10000, "num_missing": 0},
    "figures": {"num_images": 10000, "top1": 0.75, "top1_interval": [0.7, 0.8]},
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", TINY_CLIP)


def figures_of(run: Path) -> Figures:
    inference = load_for_inference(run)
    return matching_figures(run, inference.config, describe_weights(inference.weights))


def write_results(run: Path, **model: Any) -> None:
    """As `evaluate benchmark=docci,cifar10` writes them, of the run's weights unless told."""
    weights = describe_weights(load_for_inference(run).weights)
    described = {"name": "tiny", "weights": weights, "image_size": 32, "alpha": 0.5} | model
    results = {"model": described, "benchmarks": {"docci": DOCCI, "cifar10": CIFAR}}
    (run / "results.json").write_text(json.dumps(results))


def write_release(run: Path, folder: Path) -> Path:
    """As the command does, without the proof in another process."""
    inference = load_for_inference(run)
    folder.mkdir()
    _write(run, inference, gather_facts(run, inference, Given()), folder)
    return folder


def test_the_evaluation_is_of_these_weights_at_their_size(run: Path, tmp_path: Path) -> None:
    assert figures_of(run).evaluation_note == "the run has not been evaluated"
    data = write_boxed_shards(tmp_path / "boxes", 8)
    evaluate([f"checkpoint={run}", f"data={data}", "report=false", "image_size=64"])
    found = figures_of(run)
    assert found.evaluation is None
    assert found.evaluation_note == "the run was evaluated on images of 64 px, not 32"
    larger = json.loads((run / "evaluation.json").read_text())
    (run / "evaluation.json").write_text(json.dumps(larger | {"image_size": 32}))
    assert figures_of(run) == Figures(
        evaluation=larger | {"image_size": 32}, benchmarks_note="no benchmark was run"
    )


def test_an_evaluation_of_other_weights(run: Path) -> None:
    weights = {"folder": "step-00000009", "sha256": "0" * 64}
    for evaluation, which in (
        ({"checkpoint": weights, "image_size": 32}, "step-00000009"),
        ({"image_size": 32, "summary": {"t2i_r1": 0.5}}, "it is not said which"),
        ([], "it is not said which"),
    ):
        (run / "evaluation.json").write_text(json.dumps(evaluation))
        found = figures_of(run)
        assert found.evaluation is None
        assert found.evaluation_note == f"the run was evaluated at another checkpoint ({which})"
    inference = load_for_inference(run)
    card = write_card(gather_facts(run, inference, Given()), inference.config, found)
    assert f"Unknown: {found.evaluation_note}." in card
    assert "| training samples | unknown |" in card


def test_an_evaluation_with_another_alpha(tmp_path: Path) -> None:
    run = write_run(tmp_path / "caft", TINY)
    data = write_boxed_shards(tmp_path / "boxes", 8)
    evaluate([f"checkpoint={run}", f"data={data}", "report=false", "alpha=0.9"])
    assert figures_of(run).evaluation is None
    own = load_for_inference(run).config.objective.caft.alpha
    assert figures_of(run).evaluation_note == f"the run was evaluated with alpha 0.9, not {own}"
    evaluate([f"checkpoint={run}", f"data={data}", "report=false", f"alpha={own}"])
    assert figures_of(run).evaluation is not None


def test_figures_of_another_version(run: Path, tmp_path: Path) -> None:
    weights = describe_weights(load_for_inference(run).weights)
    (run / "evaluation.json").write_text(json.dumps({"checkpoint": weights, "image_size": 32}))
    write_results(run)
    results = json.loads((run / "results.json").read_text())
    del results["benchmarks"]["docci"]["coverage"]
    (run / "results.json").write_text(json.dumps(results))
    card = (write_release(run, tmp_path / "release") / "README.md").read_text()
    assert "evaluated by another version: evaluation.json lacks `captions`." in card
    assert "run by another version: results.json lacks `coverage` of docci." in card


def test_a_share_that_nobody_knows(run: Path, tmp_path: Path) -> None:
    write_results(run)
    results = json.loads((run / "results.json").read_text())
    results["benchmarks"]["docci"]["coverage"] |= {"share": None, "num_expected": None}
    (run / "results.json").write_text(json.dumps(results))
    card = (write_release(run, tmp_path / "release") / "README.md").read_text()
    assert "| DOCCI | test | an unknown share, not to be compared with all of it |" in card


def test_benchmarks_of_these_weights(run: Path, tmp_path: Path) -> None:
    write_results(run)
    release = write_release(run, tmp_path / "release")
    card = (release / "README.md").read_text().splitlines()
    cells = "t2i_r1 0.250, i2t_r1 0.500, share_cut 0.062"
    assert f"| DOCCI | test | 12.5 %, not to be compared with all of it | {cells} |" in card
    assert "| CIFAR-10 | - | all | num_images 10,000, top1 0.750 |" in card
    assert "Of these weights, scored with alpha 0.5:" in card
    assert "results.json" in (release / "SHA256SUMS").read_text()
    written = json.loads((release / "results.json").read_text())
    assert written["benchmarks"]["cifar10"] == CIFAR
    docci = written["benchmarks"]["docci"]["figures"]
    assert docci == {name: DOCCI["figures"][name] for name in ("columns", "share_cut")}


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (
            {"weights": {"folder": "step-00000009", "sha256": "0" * 64}},
            "benchmarks were run at another checkpoint (step-00000009)",
        ),
        ({"weights": None}, "benchmarks were run at another checkpoint (it is not said which)"),
        ({"image_size": 64}, "benchmarks were run on images of 64 px, not 32"),
    ],
)
def test_benchmarks_of_other_weights(
    run: Path, tmp_path: Path, model: dict[str, Any], why: str
) -> None:
    write_results(run, **model)
    release = write_release(run, tmp_path / "release")
    assert not (release / "results.json").exists()
    card = (release / "README.md").read_text()
    assert f"Unknown: {why}." in card and "DOCCI" not in card
