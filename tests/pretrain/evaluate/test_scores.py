"""Scores of whole sets, and their blend."""

from pathlib import Path

import pytest
import torch

from pretrain.evaluate.encode import encode_sentences, encode_texts
from pretrain.evaluate.scores import score_columns
from pretrain.inference import InferenceModel, load_for_inference
from pretrain.models.features import ImageFeatures, TextFeatures
from recaption.common.config import UserError
from tests.pretrain.untrained import TINY_CLIP, write_run


@pytest.fixture(scope="module")
def caft(tmp_path_factory: pytest.TempPathFactory) -> InferenceModel:
    return load_for_inference(write_run(tmp_path_factory.mktemp("caft")))


def features(num_images: int, num_texts: int) -> tuple[ImageFeatures, TextFeatures]:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    image = ImageFeatures(
        pooled=draw(num_images, 24),
        fine_pooled=draw(num_images, 24),
        fine_tokens=draw(num_images, 8, 24),
    )
    return image, TextFeatures(whole=draw(num_texts, 24), parts=draw(num_texts, 4, 24))


@torch.inference_mode()
def test_blocks_give_what_the_objective_gives_at_once(caft: InferenceModel) -> None:
    images, texts = features(5, 7)
    columns = score_columns(caft.objective, images, texts, block=3)
    assert list(columns) == ["blended", "whole", "local"]
    expected = caft.objective.score(images, texts)
    torch.testing.assert_close(columns["blended"], expected, rtol=1e-5, atol=1e-5)


def test_alpha_moves_the_blend_between_its_ends(caft: InferenceModel) -> None:
    images, texts = features(4, 4)
    columns = score_columns(caft.objective, images, texts, block=4, alpha=0.0)
    assert torch.equal(columns["blended"], columns["whole"])
    columns = score_columns(caft.objective, images, texts, block=4, alpha=1.0)
    assert torch.equal(columns["blended"], columns["local"])
    assert not torch.allclose(columns["whole"], columns["local"])


def test_alpha_is_an_error_where_nothing_is_blended(tmp_path: Path) -> None:
    clip = load_for_inference(write_run(tmp_path, TINY_CLIP))
    images, texts = features(4, 4)
    assert list(score_columns(clip.objective, images, texts, block=4)) == ["score"]
    with pytest.raises(UserError, match="alpha"):
        score_columns(clip.objective, images, texts, block=4, alpha=0.5)


def test_a_sentence_is_encoded_as_a_part_whatever_stands_beside_it(caft: InferenceModel) -> None:
    sentences = [f"this is sentence number {number}" for number in range(6)]
    encoded = encode_sentences(caft, sentences, batch_size=2)
    assert encoded.shape == (6, 24)
    for sentence, feature in zip(sentences, encoded, strict=True):
        parts = encode_texts(caft, [[sentence, "a", "b", "c"]], batch_size=1).parts
        assert parts is not None
        torch.testing.assert_close(feature, parts[0, 0], rtol=1e-4, atol=1e-5)
