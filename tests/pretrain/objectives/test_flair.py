import pytest
import torch
from torch import nn

from pretrain.distributed.exchange import Exchange
from pretrain.models.features import ImageFeatures, TextFeatures
from pretrain.objectives.flair import FlairConfig, FlairObjective
from pretrain.release.importers.flair import flair_keys
from pretrain.release.importers.keys import attention_pooling_keys, import_state, rename
from tests.pretrain.published import FLAIR, build_pair, packed, published_draw, some

POOLING = list(attention_pooling_keys("visual_proj.", "attention_pooling."))


@pytest.mark.parametrize("chunk_size", [0, 3])
@pytest.mark.parametrize("case", ["loss_tcs", "loss_tcs_mps"])
def test_equals_published_loss(case, chunk_size, golden, assert_gradients):
    reference = golden(f"flair/{case}")
    multi_positive = reference.hyper["added_mps_loss"]
    config = FlairConfig(multi_positive=multi_positive, chunk_size=chunk_size)
    objective = FlairObjective(config, reference.hyper["D"])
    objective.load_state_dict(rename(reference.group("param."), POOLING), strict=False)
    with torch.no_grad():
        objective.log_scale.fill_(reference["in.logit_scale"].log())
        objective.bias.fill_(reference["in.logit_bias"])
    pooled, tokens, texts = (
        reference[f"in.{name}"].requires_grad_()
        for name in ("image_features", "image_tokens", "text_features")
    )
    terms = objective.terms(
        ImageFeatures(pooled, tokens),
        TextFeatures(parts=texts.unflatten(0, (len(pooled), -1))),
        Exchange(),
        published_draw(reference["in.negative_offsets"]),
    )
    loss = sum(terms.values())
    torch.testing.assert_close(loss, reference["out.loss"], rtol=1e-5, atol=1e-5)
    loss.backward()
    for leaf, name in ((tokens, "image_tokens"), (texts, "text_features")):
        torch.testing.assert_close(leaf.grad, reference[f"grad.{name}"], rtol=1e-3, atol=1e-5)
    if multi_positive:
        expected = reference["grad.image_features"]
        torch.testing.assert_close(pooled.grad, expected, rtol=1e-3, atol=1e-5)
    scale = reference["grad.logit_scale"] * reference["in.logit_scale"]
    torch.testing.assert_close(objective.log_scale.grad[0], scale, rtol=1e-3, atol=1e-5)
    bias = reference["grad.logit_bias"]
    torch.testing.assert_close(objective.bias.grad[0], bias, rtol=1e-3, atol=1e-5)
    gradients = rename(reference.group("grad.param."), POOLING)
    objective.log_scale.grad = objective.bias.grad = None
    assert_gradients(objective, gradients)


def test_equals_published_model(golden, assert_gradients):
    """Official state dict in; features, loss, logits and evaluation score out."""
    reference = golden("flair/model_tiny")
    pair = build_pair(FLAIR, "flair").eval()
    model, objective = pair["model"], pair["objective"]
    state = import_state(reference.group("param."), flair_keys(model), {}, pair.state_dict())
    pair.load_state_dict(state)

    unprojected = model.image(reference["in.image"])
    for name, tensor in (
        ("global_image_token", unprojected.pooled),
        ("local_image_tokens", unprojected.tokens),
    ):
        torch.testing.assert_close(tensor, reference[f"mid.{name}"], rtol=1e-4, atol=1e-5)
    image, text = (
        model.encode_image(reference["in.image"]),
        model.encode_text(packed(reference["in.text"])),
    )
    for name, tensor in (
        ("image_features", image.pooled),
        ("image_tokens", image.tokens),
        ("text_features", text.parts.flatten(0, 1)),
    ):
        torch.testing.assert_close(tensor, reference[f"out.{name}"], rtol=1e-4, atol=1e-5)
    drawn = published_draw(reference["in.negative_offsets"])
    loss = sum(objective.terms(image, text, Exchange(), drawn).values())
    torch.testing.assert_close(loss, reference["out.loss"], rtol=1e-5, atol=1e-5)
    # One caption of one text each, where training had eight texts an image.
    alone = TextFeatures(parts=text.parts.flatten(0, 1).unsqueeze(1))
    score = objective.score(image, alone)
    texts = nn.functional.normalize(alone.parts.squeeze(1), dim=1)
    as_clip = objective.scale * nn.functional.normalize(image.pooled, dim=1) @ texts.T
    for name, logits in (
        ("eval_score", score),
        ("get_logits_image", score + objective.bias),
        ("get_logits_as_clip_image", as_clip),
    ):
        torch.testing.assert_close(logits, reference[f"out.{name}"], rtol=1e-4, atol=1e-5)
    loss.backward()
    gradients = some(reference.group("grad.param."), flair_keys(model))
    assert gradients
    assert_gradients(pair, gradients)


def test_draws_come_from_the_generator():
    generator = torch.Generator().manual_seed(0)
    image = ImageFeatures(
        torch.randn(12, 16, generator=generator), torch.randn(12, 5, 16, generator=generator)
    )
    text = TextFeatures(parts=torch.randn(12, 3, 16, generator=generator))
    objective = FlairObjective(FlairConfig(), 16)

    def local(seed):
        drawing = torch.Generator().manual_seed(seed)
        return objective(image, text, Exchange(), drawing)["part_local"].item()

    assert local(0) == local(0)
    assert local(0) != local(1)
