"""Answers to rows, through whole runs: the score of image and caption, and what else is judged."""

from pathlib import Path
from typing import Any

import pytest

from recaption.common.config import UserError, load_config
from recaption.config import RunConfig
from recaption.filters import ImageTextConfig, ImageTextScorer
from recaption.runner import RunSummary, run
from recaption.table import read_table
from tests.recaption.shard_files import picture, sample, to_bytes, write_tar

pytest.importorskip("open_clip", reason="needs open_clip_torch")
NUM_IMAGES = 8
SENTENCES = [f"Picture k{number} has blocks of colour in it" for number in range(NUM_IMAGES)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.recaption.tiny_clip import write_tiny_clip

    return write_tiny_clip(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    members = [
        member
        for number, sentence in enumerate(SENTENCES)
        for member in sample(f"k{number}", number, [sentence])
    ]
    members += [("silent.jpg", to_bytes(picture(9))), ("silent.json", b'{"sentences": ["Hm"]}')]
    write_tar(tmp_path / "in/a.tar", members)
    return tmp_path / "in"


def caption(shards: Path, *arguments: str) -> tuple[RunSummary, dict[str, dict[str, Any]]]:
    output = shards.parent / "out"
    existing = ["engine.name=existing", f"input={shards}", f"output={output}"]
    summary = run(load_config(RunConfig, [*existing, *arguments]))
    return summary, {row["key"]: row for row in read_table(output, "a").to_pylist()}


def test_captions_that_do_not_fit_their_images_are_rejected(shards: Path, weights: Path) -> None:
    """The pictures reach the scorer though this engine itself looks at none."""
    scorer = ImageTextScorer(ImageTextConfig("test-tiny-clip", str(weights)))
    pictures = [picture(number) for number in range(NUM_IMAGES)]
    scores = scorer.score(pictures, [f"{sentence}." for sentence in SENTENCES])
    lowest, highest = min(scores), max(scores)
    threshold = (lowest + highest) / 2
    assert highest - lowest > 0.01  # JPEG moves a score by less than a thousandth or two
    summary, rows = caption(
        shards,
        "filters.image_text.model=test-tiny-clip",
        f"filters.image_text.weights={weights}",
        f"filters.image_text.min_score={threshold}",
        "filters.image_text.batch_size=3",
    )
    for number, score in enumerate(scores):
        if abs(score - threshold) < 0.003:
            continue
        row = rows[f"k{number}"]
        assert row["status"] == ("ok" if score > threshold else "rejected"), (row, score)
        if row["status"] == "rejected":
            assert row["reason"].startswith("image-text: ")
            assert float(row["reason"].split()[1]) == pytest.approx(score, abs=0.003)
            assert row["caption"] == f"{SENTENCES[number]}."  # a verdict, not a deletion
    assert rows["silent"]["reason"].startswith("too-short")  # needs no score
    assert summary.status["ok"] + summary.status["rejected"] == NUM_IMAGES + 1
    assert 0 < summary.reasons["image-text"] < NUM_IMAGES


def test_a_scorer_that_fails_ends_the_run_with_its_reason(
    shards: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No row is made up; the next run goes on."""

    def fail(*_: object) -> list[float]:
        raise UserError("the scorer's GPU is gone")

    arguments = [
        "filters.image_text.model=test-tiny-clip",
        f"filters.image_text.weights={weights}",
        "filters.image_text.min_score=-1",
    ]
    with monkeypatch.context() as patch, pytest.raises(UserError, match="GPU is gone"):
        patch.setattr(ImageTextScorer, "score", fail)
        caption(shards, *arguments)
    assert not (shards.parent / "out/a.parquet").exists()
    summary, _ = caption(shards, *arguments)
    assert summary.status == {"ok": NUM_IMAGES, "rejected": 1}
