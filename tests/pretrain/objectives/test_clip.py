import pytest
import torch

from pretrain.distributed.exchange import Exchange
from pretrain.models.features import ImageFeatures, TextFeatures
from pretrain.objectives.clip import ClipConfig, ClipObjective
from pretrain.objectives.siglip import SiglipConfig, SiglipObjective


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_equals_published_loss(name, golden):
    reference = golden(f"{name}/loss_single")
    objective = {
        "clip": lambda: ClipObjective(ClipConfig()),
        "siglip": lambda: SiglipObjective(SiglipConfig()),
    }[name]()
    with torch.no_grad():
        objective.log_scale.fill_(reference["in.logit_scale"].log())
        if name == "siglip":
            objective.bias.fill_(reference["in.logit_bias"])
    images = reference["in.image_features"].requires_grad_()
    texts = reference["in.text_features"].requires_grad_()

    terms = objective(ImageFeatures(images), TextFeatures(texts), Exchange())

    loss = terms["contrastive"]
    torch.testing.assert_close(loss, reference["out.loss"], rtol=1e-5, atol=1e-6)
    loss.backward()
    # The stored features are unit vectors, and their gradients those before the normalisation.
    for leaf, key in ((images, "image_features"), (texts, "text_features")):
        gradient = reference[f"grad.{key}"]
        tangential = gradient - (gradient * leaf).sum(1, keepdim=True) * leaf
        torch.testing.assert_close(leaf.grad, tangential.detach(), rtol=1e-3, atol=1e-5)
    expected = reference["grad.logit_scale"] * reference["in.logit_scale"]
    torch.testing.assert_close(objective.log_scale.grad[0], expected, rtol=1e-3, atol=1e-5)
    if name == "siglip":
        torch.testing.assert_close(
            objective.bias.grad[0], reference["grad.logit_bias"], rtol=1e-3, atol=1e-5
        )


def test_score_ranks_by_cosine():
    objective = ClipObjective(ClipConfig())
    image = ImageFeatures(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    text = TextFeatures(torch.tensor([[3.0, 0.0], [1.0, 1.0], [0.0, 0.1]]))
    score = objective.score(image, text)
    half = 0.5**0.5
    torch.testing.assert_close(
        score * 0.07, torch.tensor([[1.0, half, 0.0], [0.0, half, 1.0]]), rtol=1e-4, atol=1e-5
    )


def test_localise_points_at_the_closest_token():
    objective = ClipObjective(ClipConfig())
    tokens = torch.randn(1, 9, 16, generator=torch.Generator().manual_seed(0))
    relevance = objective.localise(ImageFeatures(tokens[:, 0], tokens), 3 * tokens[:, [2, 5]])
    assert relevance.argmax(dim=2).tolist() == [[2, 5]]
    torch.testing.assert_close(relevance.sum(dim=2), torch.ones(1, 2))
