"""mAP@10 among whole pictures and their parts, against figures by hand and a plain loop."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pretrain.evaluate import main
from pretrain.evaluate.benchmarks.base import Coverage, JointSet, Options, Picture
from pretrain.evaluate.benchmarks.dci import read
from pretrain.evaluate.joint_task import average_precisions, belonging, expected_precision
from tests.pretrain.evaluate.benchmarks.layouts import write_goal_joint
from tests.pretrain.untrained import write_run


def test_precision_is_taken_where_something_is_found() -> None:
    scores = torch.tensor([[0.9, 0.8, 0.7, 0.6]])
    belongs = torch.tensor([[False, True, False, True]])
    assert average_precisions(scores, belongs).tolist() == [(1 / 2 + 2 / 4) / 2]
    assert average_precisions(scores, belongs, k=3).tolist() == [(1 / 2) / 2]
    assert average_precisions(scores, ~belongs).tolist() == [(1 + 2 / 3) / 2]


def test_what_is_not_above_others_is_behind_them() -> None:
    belongs = torch.tensor([[True, False, False]])
    assert average_precisions(torch.ones(1, 3), belongs).tolist() == [1 / 3]
    assert average_precisions(torch.full((1, 3), float("nan")), belongs).tolist() == [1 / 3]
    scores = torch.tensor([[float("nan"), 0.5, 0.1]])
    assert average_precisions(scores, belongs).tolist() == [1 / 3]


def test_a_random_order_reaches_chance() -> None:
    generator = torch.Generator().manual_seed(0)
    belongs = torch.zeros(4000, 12, dtype=torch.bool)
    belongs[:2000, :2] = True
    belongs[2000:, 5:6] = True
    scores = torch.rand(4000, 12, generator=generator)
    expected = expected_precision(belongs.sum(dim=1), 12)
    assert average_precisions(scores, belongs).mean().item() == pytest.approx(expected, abs=0.01)


def joint_set() -> JointSet:
    """Pictures 0 and 1, parts 2 and 3 of 0, part 4 of 1, which has the text of part 2."""
    pictures = [Picture(Path("x"), str(number)) for number in range(5)]
    texts = ["all", "other", "a tree", "a house", "a tree"]
    return JointSet(pictures, texts, [0, 1, 2, 3, 4], Coverage(5), [0, 1, 0, 0, 1])


def test_parts_belong_to_their_picture_and_not_to_each_other() -> None:
    expected: Tensor = torch.tensor(
        [
            [1, 0, 1, 1, 1],  # the text of part 2 is part 4's, too
            [0, 1, 1, 0, 1],
            [1, 0, 1, 0, 1],
            [1, 0, 0, 1, 0],
            [0, 1, 1, 0, 1],
        ]
    )
    assert torch.equal(belonging(joint_set()).int(), expected.int())


def test_the_published_list_is_read(tmp_path: Path) -> None:
    data = read(write_goal_joint(tmp_path), Options("joint"))
    assert isinstance(data, JointSet)
    names = [Path(image.name).name for image in data.images]
    assert names == ["sa_1.jpg", "sa_2.jpg", "sa_1_max_3.png", "original_image.jpg"]
    assert list(data.whole_of_image) == [0, 1, 0, 1]
    assert data.coverage.num_expected == 4


def test_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_goal_joint(tmp_path / "dci")
    run = write_run(tmp_path / "run")
    main(["benchmark=dci", "variant=joint", f"root={root}", f"checkpoint={run}"])
    result = json.loads((run / "results.json").read_text())["benchmarks"]["dci:joint"]
    figures = result["figures"]
    assert result["published"] == {} and result["coverage"]["share"] == 1
    assert 0 < figures["text_to_image_map10"] <= 1
    low, high = figures["image_to_text_map10_interval"]
    assert low <= figures["image_to_text_map10"] <= high
    assert set(figures["whole"]) == set(figures["local"])
    # Each picture and its one part: two of four belong to every query.
    assert figures["chance"]["image_to_text_map10"] == pytest.approx(
        expected_precision(torch.tensor([2]), 4)
    )
    assert "text_to_image_map10" in capsys.readouterr().out
