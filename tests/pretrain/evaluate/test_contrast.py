"""The loss that all objectives have in common."""

from math import isnan, log

import pytest
import torch

from pretrain.evaluate.contrast import retrieval_loss


@pytest.fixture
def scores() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(700, 700, generator=generator)
    return noise + 2 * torch.eye(700)


def test_it_is_that_of_the_best_scale(scores: torch.Tensor) -> None:
    targets = torch.arange(700)
    losses = [
        (
            torch.nn.functional.cross_entropy(s * scores.double(), targets)
            + torch.nn.functional.cross_entropy(s * scores.T.double(), targets)
        ).item()
        / 2
        for s in torch.linspace(0.5, 3, 101)
    ]
    assert 0 < losses.index(min(losses)) < 100
    assert retrieval_loss(scores) == pytest.approx(min(losses), abs=1e-3)
    assert retrieval_loss(scores) <= min(losses)


def test_scale_and_bias_of_a_model_do_not_matter(scores: torch.Tensor) -> None:
    expected = retrieval_loss(scores)
    assert retrieval_loss(100 * scores - 10) == pytest.approx(expected, rel=1e-5)
    assert retrieval_loss(0.001 * scores) == pytest.approx(expected, rel=1e-5)


def test_its_ends(scores: torch.Tensor) -> None:
    assert retrieval_loss(torch.ones(8, 8)) == log(8)  # nothing is told apart
    assert retrieval_loss(-torch.eye(8)) == pytest.approx(log(8), abs=1e-3)  # worse than chance
    assert retrieval_loss(torch.eye(8)) < 1e-6
    assert isnan(retrieval_loss(scores.fill_(float("nan"))))
