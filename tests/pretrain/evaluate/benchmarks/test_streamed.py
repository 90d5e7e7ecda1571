"""Streamed scores: the same for any batches, and those of the objective."""

import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from pretrain.evaluate.canopy_encoders import CanopyEncoders
from pretrain.evaluate.rerank import reranked
from pretrain.evaluate.streamed import TILE, streamed_scores, tiles
from pretrain.models.features import ImageFeatures, TextFeatures
from pretrain.objectives.caft import CaftConfig, CaftObjective
from tests.pretrain.evaluate.benchmarks.models import canopy_encoders
from tests.pretrain.trainruns import TINY
from tests.pretrain.untrained import TINY_CLIP

NUM_IMAGES, NUM_TEXTS, WIDTH = 2 * TILE + 7, 90, 24
FLAIR = TINY.replace(
    "objective: {name: caft, caft: {loss_form: softmax}}", "objective: {name: flair}"
)


def features() -> tuple[ImageFeatures, TextFeatures]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, WIDTH, generator=generator)

    images = ImageFeatures(
        pooled=draw(NUM_IMAGES), tokens=draw(NUM_IMAGES, 5), fine_tokens=draw(NUM_IMAGES, 6)
    )
    return images, TextFeatures(whole=draw(NUM_TEXTS), parts=draw(NUM_TEXTS, 4))


def split(images: ImageFeatures, size: int) -> list[ImageFeatures]:
    return [images[start : start + size] for start in range(0, len(images), size)]


def scored(encoders: CanopyEncoders, size: int) -> dict[str, torch.Tensor]:
    images, texts = features()
    return streamed_scores(encoders, iter(split(images, size)), NUM_IMAGES, texts)


def test_images_are_let_go_once_they_are_scored(tmp_path: Path) -> None:
    encoders = canopy_encoders(tmp_path, TINY)
    images, texts = features()
    batches: list[weakref.ref[torch.Tensor]] = []
    most = 0

    def encoded() -> Iterator[ImageFeatures]:
        nonlocal most
        for start in range(0, NUM_IMAGES, 50):
            chosen = torch.arange(start, min(start + 50, NUM_IMAGES))
            batch = images[chosen]  # a copy: slices would keep all of the set
            batches.append(weakref.ref(batch.pooled))
            most = max(most, sum(reference() is not None for reference in batches))
            yield batch
            del batch

    streamed_scores(encoders, encoded(), NUM_IMAGES, texts)
    assert len(batches) == 11 and most <= 3


@pytest.mark.parametrize("candidates", [None, 5])
@pytest.mark.parametrize("config", [TINY, TINY_CLIP, FLAIR], ids=["caft", "clip", "flair"])
def test_any_batches_give_the_same_numbers(
    config: str, candidates: int | None, tmp_path: Path
) -> None:
    if candidates and config != TINY:
        pytest.skip("only CAFT re-ranks")
    encoders = canopy_encoders(tmp_path, config, num_candidates=candidates)
    expected = scored(encoders, NUM_IMAGES)
    for size in (3, 50, TILE):
        again = scored(encoders, size)
        assert again.keys() == expected.keys()
        assert all(torch.equal(again[name], expected[name]) for name in expected)


@pytest.mark.parametrize("config", [TINY, TINY_CLIP, FLAIR], ids=["caft", "clip", "flair"])
def test_scores_are_those_of_the_objective(config: str, tmp_path: Path) -> None:
    encoders = canopy_encoders(tmp_path, config)
    images, texts = features()
    with torch.inference_mode():
        expected = encoders.inference.objective.score(images, texts)
    first = next(iter(scored(encoders, 13).values()))
    torch.testing.assert_close(first, expected, rtol=1e-4, atol=1e-5)


def test_tiles_have_one_size_and_keep_the_order() -> None:
    images, _ = features()
    for size in (1, 3, 40, NUM_IMAGES):
        cut = list(tiles(split(images, size), 16))
        assert [len(tile) for tile in cut] == [16] * (NUM_IMAGES // 16) + [NUM_IMAGES % 16]
        assert torch.equal(torch.cat([tile.pooled for tile in cut]), images.pooled)


def test_too_few_images_are_noticed(tmp_path: Path) -> None:
    images, texts = features()
    encoders = canopy_encoders(tmp_path, TINY_CLIP)
    with pytest.raises(ValueError, match=f"{NUM_IMAGES} images came"):
        streamed_scores(encoders, [images], NUM_IMAGES + 1, texts)


def test_re_ranking_gives_the_blend_to_the_best_by_the_whole(tmp_path: Path) -> None:
    blended = scored(canopy_encoders(tmp_path / "a", alpha=0.6), 20)
    best = scored(canopy_encoders(tmp_path / "b", alpha=0.6, num_candidates=8), 20)
    assert list(best) == ["re-ranked", "whole"]
    found = best["re-ranked"] > torch.finfo(torch.float32).min
    assert (found.sum(dim=1) == 8).all()
    torch.testing.assert_close(
        best["re-ranked"][found], blended["blended"][found], rtol=1e-4, atol=1e-5
    )
    lowest_found = blended["whole"].masked_fill(~found, float("inf")).amin(dim=1)
    assert (blended["whole"].masked_fill(found, float("-inf")).amax(dim=1) <= lowest_found).all()


def test_re_ranking_equals_the_published_code(golden: Callable) -> None:
    """Six images and captions, the three best of each image."""
    case = golden("caft/retrieval")
    # Local scores are known for all pairs: an objective that looks them up stands for the model.
    objective = CaftObjective(CaftConfig(), 32)
    number = torch.arange(6.0)

    def local_scores(image: ImageFeatures, text: TextFeatures) -> torch.Tensor:
        assert text.whole is not None
        rows = case["out.score_fine"][image.pooled[:, 0].long()]
        return rows[:, text.whole[:, 0].long()]

    objective.local_scores = local_scores  # type: ignore[method-assign]
    images = ImageFeatures(pooled=number[:, None], fine_tokens=number[:, None, None])
    texts = TextFeatures(whole=number[:, None], parts=number[:, None, None])
    scores = reranked(objective, images, texts, case["out.score_coarse"], 0.3, 3)
    found = scores.topk(3, dim=1)
    in_order = case["out.topk_scores"].sort(dim=1, descending=True)
    torch.testing.assert_close(found.values, in_order.values, rtol=1e-4, atol=1e-5)
    assert torch.equal(found.indices, case["out.topk_index"].long().gather(1, in_order.indices))
