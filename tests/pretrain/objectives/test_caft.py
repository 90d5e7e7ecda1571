import math

import pytest
import torch
from torch.nn import functional as F

from pretrain.distributed.exchange import Exchange
from pretrain.models.features import ImageFeatures, TextFeatures
from pretrain.objectives.caft import CaftConfig, CaftObjective
from pretrain.release.importers.keys import attention_pooling_keys, rename
from recaption.common.config import ConfigError
from tests.pretrain.published import published_draw


def published_features(reference, prefix=""):
    """Features of a stored loss case, as leaves."""
    names = ["coarse_global", "fine_global", "fine_local"]
    pooled, fine, tokens = (reference[f"{prefix}in.image_{name}"] for name in names)
    parts = reference[f"{prefix}in.text_fine_global"].unflatten(0, (len(pooled), -1))
    image = ImageFeatures(pooled, fine_pooled=fine, fine_tokens=tokens)
    text = TextFeatures(whole=reference[f"{prefix}in.text_coarse_global"], parts=parts)
    return image.map(torch.Tensor.requires_grad_), text.map(torch.Tensor.requires_grad_)


def published_objective(reference, weights, width, prefix="in."):
    objective = CaftObjective(CaftConfig(), width)
    objective.attention_pooling.load_state_dict(weights)
    with torch.no_grad():
        objective.part_log_scale.copy_(reference[f"{prefix}logit_scale"].log())
        objective.whole_log_scale.copy_(reference[f"{prefix}logit_scale_coarse"].log())
        objective.part_bias.copy_(reference[f"{prefix}logit_bias"])
        objective.whole_bias.copy_(reference[f"{prefix}logit_bias_coarse"])
    return objective


@pytest.mark.parametrize("case", ["loss_single", "loss_single_trained_scale"])
@pytest.mark.parametrize("chunk_size", [0, 3])
def test_equals_published_loss(case, chunk_size, golden, assert_gradients):
    reference = golden(f"caft/{case}")
    pooling = rename(reference.group("param."), attention_pooling_keys("visual_proj.", ""))
    width = reference.hyper["D"]
    objective = published_objective(reference, pooling, width)
    objective.config.chunk_size = chunk_size
    image, text = published_features(reference)

    terms = objective.sigmoid_terms(
        image, text, Exchange(), published_draw(reference["in.negative_offsets"])
    )

    for name, published in (("part_local", "ftcs"), ("part_global", "fmps"), ("whole", "cmps")):
        torch.testing.assert_close(
            terms[name], reference[f"out.{published}_loss"], rtol=1e-5, atol=1e-5
        )
    sum(terms.values()).backward()
    for gradient, key in (
        (image.pooled.grad, "image_coarse_global"),
        (image.fine_pooled.grad, "image_fine_global"),
        (image.fine_tokens.grad, "image_fine_local"),
        (text.whole.grad, "text_coarse_global"),
        (text.parts.grad.flatten(0, 1), "text_fine_global"),
    ):
        torch.testing.assert_close(gradient, reference[f"grad.{key}"], rtol=1e-3, atol=1e-5)
    for parameter, key, factor in (
        (objective.part_log_scale, "logit_scale", reference["in.logit_scale"]),
        (objective.whole_log_scale, "logit_scale_coarse", reference["in.logit_scale_coarse"]),
        (objective.part_bias, "logit_bias", 1),
        (objective.whole_bias, "logit_bias_coarse", 1),
    ):
        torch.testing.assert_close(
            parameter.grad[0], reference[f"grad.{key}"] * factor, rtol=1e-3, atol=1e-4
        )
    gradients = rename(reference.group("grad.param."), attention_pooling_keys("visual_proj.", ""))
    assert_gradients(objective.attention_pooling, gradients)


def features(batch=5, num_texts=3, width=16, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    image = ImageFeatures(
        draw(batch, width), fine_pooled=draw(batch, width), fine_tokens=draw(batch, 7, width)
    )
    return image, TextFeatures(whole=draw(batch, width), parts=draw(batch, num_texts, width))


def test_softmax_form_from_the_definition():
    """Loops over pairs, against the matrices of the implementation."""
    image, text = features()
    objective = CaftObjective(CaftConfig(loss_form="softmax"), 16)
    drawn = torch.tensor([2, 0, 1, 1, 2])
    terms = objective.softmax_terms(image, text, Exchange(), drawn)
    scale = 1 / 0.07

    def local(i, query):
        pooled = objective.attention_pooling(query.view(1, 1, -1), image.fine_tokens[i : i + 1])
        return scale * F.cosine_similarity(pooled.flatten(), query, dim=0)

    def glob(i, query):
        return scale * F.cosine_similarity(image.fine_pooled[i], query, dim=0)

    for name, similarity, negatives in (
        ("part_local", local, lambda m: [text.parts[m, drawn[m]]]),
        ("part_global", glob, lambda m: list(text.parts[m])),
    ):
        over_texts, over_images = [], []
        for i in range(5):
            others = [similarity(i, t) for m in range(5) if m != i for t in negatives(m)]
            for query in text.parts[i]:
                own = similarity(i, query)
                over_texts.append(torch.stack([own, *others]).logsumexp(0) - own)
            for query in negatives(i):
                column = torch.stack([similarity(j, query) for j in range(5)])
                over_images.append(column.logsumexp(0) - column[i])
        expected = (torch.stack(over_texts).mean() + torch.stack(over_images).mean()) / 2
        torch.testing.assert_close(terms[name], expected)
    logits = scale * F.normalize(image.pooled, dim=1) @ F.normalize(text.whole, dim=1).T
    target = torch.arange(5)
    expected = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    torch.testing.assert_close(terms["whole"], expected)


@pytest.mark.parametrize("loss_form", ["sigmoid", "softmax"])
def test_draws_come_from_the_generator(loss_form):
    image, text = features(batch=12)
    objective = CaftObjective(CaftConfig(loss_form=loss_form), 16)

    def local(seed):
        generator = torch.Generator().manual_seed(seed)
        return objective(image, text, Exchange(), generator)["part_local"].item()

    assert local(0) == local(0)
    assert local(0) != local(1)


def test_weights_scale_the_terms():
    image, text = features()
    plain, weighted = (
        CaftObjective(CaftConfig(whole_weight=w, part_global_weight=0.0), 16) for w in (1.0, 2.5)
    )
    first = plain(image, text, Exchange(), torch.Generator().manual_seed(0))
    second = weighted(image, text, Exchange(), torch.Generator().manual_seed(0))
    torch.testing.assert_close(2.5 * first["whole"], second["whole"])
    assert second["part_global"] == 0


def test_first_losses_are_those_of_the_published_log():
    """About 10 a positive: 77.9 / 9.7 / 9.8 at 256 images of 8 texts."""
    generator = torch.Generator().manual_seed(0)
    image, text = features(batch=64, num_texts=8, width=128)
    terms = CaftObjective(CaftConfig(), 128)(image, text, Exchange(), generator)
    assert terms["part_local"].item() == pytest.approx(10 * 64 * 8 / 71, rel=0.05)
    assert terms["part_global"].item() == pytest.approx(10, rel=0.05)
    assert terms["whole"].item() == pytest.approx(10, rel=0.05)


def test_equals_published_retrieval_score(golden):
    reference, state = golden("caft/retrieval"), golden("caft/tiny_model_state_public")
    pooling = rename(state.tensors, attention_pooling_keys("visual_proj.", ""))
    objective = CaftObjective(CaftConfig(alpha=0.3), 32)
    objective.attention_pooling.load_state_dict(pooling)
    with torch.no_grad():
        objective.part_log_scale.copy_(state["logit_scale"])
        objective.whole_log_scale.copy_(state["logit_scale_coarse"])
        objective.part_bias.copy_(state["logit_bias"])
        objective.whole_bias.copy_(state["logit_bias_coarse"])
    image = ImageFeatures(
        reference["mid.image_coarse_global"], fine_tokens=reference["mid.image_fine_local"]
    )
    text = TextFeatures(
        reference["mid.text_coarse_global"], reference["mid.text_fine_global"].view(6, 4, 32)
    )
    score = objective.score(image, text)
    torch.testing.assert_close(score, reference["out.score_blend"], rtol=1e-4, atol=1e-4)
    objective.config.alpha = 0.0
    score = objective.score(image, text)
    torch.testing.assert_close(score, reference["out.score_coarse"], rtol=1e-4, atol=1e-4)


def test_localise_finds_the_token_that_the_query_asks_for():
    objective = CaftObjective(CaftConfig(loss_form="softmax"), 64)
    pooling = objective.attention_pooling
    with torch.no_grad():
        for layer in (pooling.value, pooling.project):
            layer.weight.copy_(torch.eye(64))
    tokens = torch.randn(2, 9, 64, generator=torch.Generator().manual_seed(0))
    image = ImageFeatures(tokens[:, 0], fine_tokens=tokens)
    relevance = objective.localise(image, 0.1 * tokens[:, [4, 7]])
    assert relevance.argmax(dim=2).tolist() == [[4, 7], [4, 7]]
    assert (relevance >= 0).all()
    torch.testing.assert_close(relevance.sum(dim=2), torch.ones(2, 2))


def test_scale_stops_at_its_bound_and_comes_back():
    objective = CaftObjective(CaftConfig(max_part_scale=50.0), 16)
    with torch.no_grad():
        objective.part_log_scale.fill_(10.0)
    objective.part_scale.backward()
    assert objective.part_scale.item() == pytest.approx(50.0)
    assert objective.part_log_scale.grad.item() == pytest.approx(50.0)  # leads down, passes
    objective.part_log_scale.grad = None
    (-objective.part_scale).backward()
    assert objective.part_log_scale.grad == 0  # leads further out, stopped
    assert math.isclose(objective.diagnostics()["part_scale"], 50.0, rel_tol=1e-5)


def test_unknown_loss_form():
    with pytest.raises(ConfigError, match="loss_form is 'hinge'"):
        CaftObjective(CaftConfig(loss_form="hinge"), 16)


@pytest.mark.parametrize("alpha", [-0.1, 7.0, float("nan")])
def test_alpha_is_a_share(alpha: float) -> None:
    with pytest.raises(ConfigError, match=r"objective\.caft\.alpha=.*: a share, 0 to 1"):
        CaftConfig(alpha=alpha)
