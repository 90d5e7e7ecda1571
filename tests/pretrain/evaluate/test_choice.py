"""Choice between texts that differ in a colour."""

from pathlib import Path

import pytest
from torch import Tensor

from pretrain.evaluate.benchmarks.base import ChoiceSet, Coverage, Picture
from pretrain.evaluate.choice import evaluate
from pretrain.models.features import ImageFeatures, TextFeatures
from tests.pretrain.evaluate.benchmarks.colours import ColourEncoders, write_picture


def _set(folder: Path) -> ChoiceSet:
    write_picture(folder / "red", "red")
    write_picture(folder / "half", "green", "blue")
    images = [
        Picture(folder, "red"),
        Picture(folder, "red"),
        Picture(folder, "half", (0, 0, 8, 16)),  # green
        Picture(folder, "half", (8, 0, 8, 16)),  # blue
    ]
    choices = [
        ["a red wall", "a blue wall"],
        ["a red wall", "something that is red and has more words than eight"],  # a tie
        ["a green wall", "a blue wall", "a red wall"],
        ["a green wall", "a blue wall", "a red wall"],
    ]
    return ChoiceSet(images, choices, ["swap", "swap", "crop", "crop"], Coverage(4))


def test_figures(tmp_path: Path) -> None:
    result = evaluate(_set(tmp_path), ColourEncoders(), batch_size=3)
    assert result["accuracy"] == 0.5
    assert result["by_group"] == {"swap": 0.5, "crop": 0.5}
    assert result["mean_of_groups"] == 0.5
    assert result["num_by_group"] == [["swap", 2], ["crop", 2]]
    assert result["chance"]["accuracy"] == pytest.approx((1 / 2 + 1 / 2 + 1 / 3 + 1 / 3) / 4)
    assert result["chance"]["by_group"]["crop"] == pytest.approx(1 / 3)
    assert result["share_cut"] == pytest.approx(1 / 10)
    assert evaluate(_set(tmp_path), ColourEncoders(), batch_size=1) == result


def test_nan_is_wrong(tmp_path: Path) -> None:
    class Broken(ColourEncoders):
        def score(self, images: ImageFeatures, texts: TextFeatures) -> Tensor:
            return super().score(images, texts) * float("nan")

    assert evaluate(_set(tmp_path), Broken(), batch_size=3)["accuracy"] == 0
