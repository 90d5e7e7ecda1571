"""Images and captions at the edge: defined results, or an error that says what to do."""

import math
from dataclasses import replace
from random import Random

import pytest
import torch

from pretrain.data.captions import CaptionsConfig, evaluation_texts, sample_texts, split_caption
from pretrain.data.tokens import Tokenizer
from pretrain.distributed.exchange import Exchange
from pretrain.models.image.hierarchical import HierarchicalConfig, HierarchicalEncoder
from pretrain.models.image.stem import StemConfig
from pretrain.models.image.superpixels import SuperpixelConfig
from pretrain.objectives.caft import CaftConfig, CaftObjective
from pretrain.objectives.flair import FlairConfig, FlairObjective
from recaption.common.config import ConfigError
from tests.pretrain.published import CAFT, build_pair, packed

SIZE = 64


def encoder(superpixels="slic", **changes):
    torch.manual_seed(0)
    config = HierarchicalConfig(
        width=48,
        num_heads=4,
        depths=[1, 1, 1, 1],
        num_clusters=[8, 6, 4],
        stem=StemConfig([6, 12, 24, 48], [2, 2, 2, 1]),
        superpixels=SuperpixelConfig(superpixels),
        pooling_dropout=0.0,
    )
    return HierarchicalEncoder(replace(config, **changes), SIZE).eval()


@pytest.mark.parametrize("superpixels", ["slic", "spixelfcn", "grid"])
def test_a_nan_in_one_image_stays_there(superpixels):
    model = encoder(superpixels)
    images = torch.randn(3, 3, SIZE, SIZE)
    expected = model(images)
    images[1, :, 20, 30] = math.nan
    labels = model.superpixels(images)
    assert labels.min() >= 0 and labels.max() < model.num_superpixels
    features = model(images)
    for index in (0, 2):
        torch.testing.assert_close(features.pooled[index], expected.pooled[index])
        torch.testing.assert_close(features.fine_tokens[index], expected.fine_tokens[index])
    assert not features.pooled[1].isfinite().all()


@pytest.mark.parametrize("superpixels", ["slic", "spixelfcn", "grid"])
@pytest.mark.parametrize("position_scale", [0.0, 1.0])
def test_constant_images(superpixels, position_scale):
    """Without positions all tokens are one point, and sampling must choose some all the same."""
    model = encoder(superpixels, position_scale=position_scale).train()
    features = model(torch.full((2, 3, SIZE, SIZE), 0.3))
    assert all(tensor.isfinite().all() for _, tensor in features)
    torch.testing.assert_close(features.pooled[0], features.pooled[1], rtol=1e-3, atol=1e-4)
    features.pooled.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_all_superpixels_dead_but_one():
    model = encoder()
    images = torch.randn(2, 3, SIZE, SIZE)
    labels = torch.full((2, SIZE, SIZE), 5)
    features = model(images, labels=labels, with_hierarchy=True)
    assert all(tensor.isfinite().all() for _, tensor in features)
    tokens, dead = model.segment_tokens(model.stem(images), labels)
    assert dead.sum(dim=1).tolist() == [model.num_superpixels - 1] * 2
    torch.testing.assert_close(tokens, tokens[:, 5:6].expand_as(tokens))


def test_fewer_superpixels_than_clusters():
    with pytest.raises(ConfigError, match="16 superpixels cannot be pooled to 20"):
        encoder(num_clusters=[20, 6, 4])


@pytest.mark.parametrize("num_clusters", [[8, 9, 4], [8, 6, 7]])
def test_a_pooling_that_pools_nothing(num_clusters):
    with pytest.raises(ConfigError, match="num_clusters"):
        encoder(num_clusters=num_clusters)


def test_a_batch_of_one():
    """Its only negatives are those of other ranks, of which there are none."""
    torch.manual_seed(0)
    model = build_pair(CAFT, "caft")["model"].train()
    texts = torch.randint(1, 500, (1, 8, 16))
    texts[:, :, 9] = 511
    image = model.encode_image(torch.randn(1, 3, 224, 224))
    text = model.encode_text(packed(texts))
    for objective in (
        CaftObjective(CaftConfig(), 32),
        CaftObjective(CaftConfig(loss_form="softmax"), 32),
        FlairObjective(FlairConfig(), 32),
    ):
        loss = sum(objective(image, text, Exchange(), torch.Generator()).values())
        assert loss.isfinite()
        loss.backward(retain_graph=True)
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    "caption",
    ["A dog.", "dog", " ".join(["word"] * 800) + ".", " ".join(["A dog runs."] * 260), "A. B. C."],
    ids=["one sentence", "one word", "one sentence of 800 words", "780 words", "short pieces"],
)
def test_captions_of_any_length(caption):
    config, tokenizer = CaptionsConfig(), Tokenizer()
    sentences = split_caption(caption, min_characters=1)
    training = sample_texts({"long": sentences}, config, Random(0))
    evaluation = evaluation_texts({"long": sentences}, config, "long")
    assert len(training) == 8 and len(evaluation) == 4
    for text in training + evaluation:
        assert text and len(tokenizer.encode(text)) <= 77


def test_an_empty_caption():
    assert split_caption("") == split_caption(" . \n.") == []
    with pytest.raises(ValueError, match="no sentences"):
        sample_texts({"long": []}, CaptionsConfig(), Random(0))
