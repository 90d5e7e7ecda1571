"""Zero-shot classification on pictures of one colour."""

from pathlib import Path

import pytest
import torch

from pretrain.evaluate.benchmarks.base import ClassificationSet, Coverage, Picture
from pretrain.evaluate.classification import evaluate, figures, ranks
from pretrain.evaluate.prompts import class_texts
from tests.pretrain.evaluate.benchmarks.colours import ColourEncoders, write_picture


def test_figures_of_four_pictures(tmp_path: Path) -> None:
    for name, colour in {"a": "red", "b": "red", "c": "green", "d": "blue"}.items():
        write_picture(tmp_path / name, colour)
    data = ClassificationSet(
        images=[Picture(tmp_path, name) for name in "abcd"],
        labels=[0, 0, 1, 1],  # the last one is found as blue, which it is
        classes=["red", "green", "blue"],
        templates=["a {}.", "a very long prompt about all of the things {}."],
        coverage=Coverage(4),
    )
    result = evaluate(data, ColourEncoders(), batch_size=3)
    assert (result["num_images"], result["num_classes"]) == (4, 3)
    assert result["top1"] == 0.75
    assert result["per_class"] == pytest.approx((1 + 0.5) / 2)  # blue has no image
    assert result["top5"] == result["chance"]["top5"] == 1.0
    assert result["chance"]["top1"] == pytest.approx(1 / 3)
    assert result["share_cut"] == 0.5
    low, high = result["top1_interval"]
    assert 0.25 <= low <= 0.75 <= high <= 1.0
    assert evaluate(data, ColourEncoders(), batch_size=1) == result


def test_a_class_is_the_mean_of_directions_of_its_prompts() -> None:
    # "red red" is twice as long as "red": without normalisation it would weigh twice.
    texts = class_texts(ColourEncoders(), ["red"], ["{} {}", "green {}", "green"], 2).whole
    half = 0.5**0.5
    expected = torch.tensor([1 + half, half + 1, 0.0])
    torch.testing.assert_close(texts, (expected / expected.norm())[None])


def test_equal_scores_go_to_the_class_that_comes_first_and_nan_to_none() -> None:
    scores = torch.tensor([[0.5, 0.5, 0.1], [0.5, 0.5, 0.1], [0.0, float("nan"), 0.0]])
    found = ranks(scores, torch.tensor([0, 1, 1]))
    assert found[:2].tolist() == [1, 2]
    assert figures(found, torch.tensor([0, 1, 1]), 3)["top5"] == pytest.approx(2 / 3)
