"""Recalls and ranks of crafted score matrices."""

from collections.abc import Callable

import pytest
import torch

from pretrain.evaluate.retrieval import (
    chance,
    image_to_text_ranks,
    retrieval,
    text_to_image_ranks,
)


def test_perfect_scores_are_all_found() -> None:
    result = retrieval(torch.eye(20))
    for recall in (result.text_to_image, result.image_to_text):
        assert (recall.r1, recall.r5, recall.r10, recall.median_rank) == (1, 1, 1, 1)


def test_the_two_directions_are_not_mixed_up() -> None:
    # Rows are images. Image 0 outscores every other image on every text.
    scores = torch.tensor([[3.0, 2.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.5]])
    texts = torch.arange(3)
    assert text_to_image_ranks(scores, texts).tolist() == [1, 2, 2]
    assert image_to_text_ranks(scores, texts).tolist() == [1, 1, 1]


def test_equals_published_recalls(golden: Callable) -> None:
    """Of the scores that CAFT's published code gives 6 images and 6 captions, blended by 0.3."""
    scores = golden("caft/retrieval")
    blended = 0.7 * scores["out.score_coarse"] + 0.3 * scores["out.score_fine"]
    torch.testing.assert_close(blended, scores["out.score_blend"], rtol=1e-4, atol=1e-5)
    result = retrieval(scores["out.score_blend"])
    assert (result.text_to_image.r1, result.text_to_image.r5) == pytest.approx((0, 5 / 6))
    assert (result.image_to_text.r1, result.image_to_text.r5) == pytest.approx((1 / 6, 5 / 6))


def test_recall_counts_ranks_up_to_k() -> None:
    scores = torch.zeros(12, 12)
    for text in range(12):  # the right image of text t comes at rank t + 1
        others = [image for image in range(12) if image != text]
        scores[others[:text], text] = 2.0
        scores[text, text] = 1.0
    recall = retrieval(scores).text_to_image
    assert recall.r1 == pytest.approx(1 / 12)
    assert recall.r5 == pytest.approx(5 / 12)
    assert recall.r10 == pytest.approx(10 / 12)
    assert recall.median_rank == pytest.approx(6.5)


def test_ties_count_against_the_model() -> None:
    result = retrieval(torch.ones(8, 8))
    assert result.text_to_image.r5 == 0.0
    assert result.image_to_text.median_rank == 8


def test_scores_that_are_not_numbers_find_nothing() -> None:
    scores = torch.eye(12)
    scores[0, 0] = float("nan")
    texts = torch.arange(12)
    assert text_to_image_ranks(scores, texts).tolist() == [12] + [1] * 11
    assert image_to_text_ranks(scores, texts).tolist() == [12] + [1] * 11


def test_any_of_several_texts_is_a_hit() -> None:
    # Texts 0 and 1 belong to image 0, text 2 to image 1.
    scores = torch.tensor([[0.1, 0.9, 0.5], [0.0, 0.8, 0.7]])
    texts = torch.tensor([0, 0, 1])
    assert image_to_text_ranks(scores, texts).tolist() == [1, 2]
    assert text_to_image_ranks(scores, texts).tolist() == [1, 1, 1]


def test_siblings_of_the_best_text_are_not_in_its_way() -> None:
    scores = torch.tensor([[0.9, 0.9, 0.5], [0.0, 0.0, 1.0]])
    assert image_to_text_ranks(scores, torch.tensor([0, 0, 1])).tolist() == [1, 1]


@pytest.mark.parametrize("texts_an_image", [1, 3])
def test_chance_is_what_random_scores_reach(texts_an_image: int) -> None:
    texts = torch.arange(20).repeat_interleave(texts_an_image)
    generator = torch.Generator().manual_seed(0)
    runs = [retrieval(torch.rand(20, len(texts), generator=generator), texts) for _ in range(400)]
    expected = chance(20, texts)
    for direction in ("text_to_image", "image_to_text"):
        for name in ("r1", "r5", "r10"):
            measured = sum(getattr(getattr(run, direction), name) for run in runs) / len(runs)
            assert measured == pytest.approx(getattr(getattr(expected, direction), name), abs=0.02)
        measured = sum(getattr(run, direction).median_rank for run in runs) / len(runs)
        assert measured == pytest.approx(getattr(expected, direction).median_rank, rel=0.05)


def test_chance_of_a_large_set() -> None:
    """Five of 25,000 texts an image: half of the images have one among the first 3,236."""
    texts = torch.arange(25_000) % 5000
    found = chance(5000, texts).image_to_text
    assert 0.4997 < 1 - (1 - found.median_rank / 25_000) ** 5 < 0.5003
    assert found.r1 == pytest.approx(1 / 5000)
