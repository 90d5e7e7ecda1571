"""The Triton kernels in Triton's interpreter, against the eager way and the published code.

Run by test_fused_pooling.py, with TRITON_INTERPRET=1.
"""

import pytest
import torch

from pretrain.distributed.exchange import Exchange
from pretrain.models.features import ImageFeatures, TextFeatures
from pretrain.objectives import comparison
from pretrain.objectives.caft import CaftConfig, CaftObjective
from pretrain.objectives.comparison import PooledCosines
from pretrain.objectives.ring import ring_sigmoid
from pretrain.ops import fused_pooling
from pretrain.ops.attention_pooling import AttentionPooling
from pretrain.release.importers.keys import attention_pooling_keys, rename
from tests.pretrain.published import published_draw


@pytest.fixture
def kernels(monkeypatch):
    """The module, with its kernels taken on the CPU too."""
    monkeypatch.setattr(comparison, "fits_fused_kernels", lambda image: True)
    return fused_pooling


@pytest.mark.parametrize(
    ("batch", "num_texts", "num_tokens", "width"),
    [(5, 3, 9, 48), (1, 2, 1, 8), (3, 20, 70, 160)],
    ids=["odd sizes", "one of each", "more than a block"],
)
@pytest.mark.parametrize("all_negative", [False, True])
def test_equals_the_eager_way(
    batch, num_texts, num_tokens, width, all_negative, kernels, monkeypatch
):
    torch.manual_seed(0)
    pooling = AttentionPooling(width)
    tokens = torch.randn(batch, num_tokens, width).requires_grad_()
    texts = torch.randn(batch * num_texts, width).requires_grad_()
    scale, bias = (torch.tensor([x]).requires_grad_() for x in (8.0, -2.0))
    drawn = torch.randint(num_texts, (batch, batch))
    exchange = Exchange()
    if all_negative:
        exchange.rank = 1  # the only texts there are come from rank 0
    leaves = [tokens, texts, scale, bias, *pooling.parameters()]
    # Two images at a time.
    monkeypatch.setattr(kernels, "MAX_BUFFER", 2 * (batch + num_texts - 1) * width)

    def loss_and_gradients():
        image = pooling.project_tokens(tokens)
        pairs = PooledCosines(pooling, image, scale, bias)
        loss = ring_sigmoid(pairs, texts.unflatten(0, (batch, -1)), exchange, drawn)
        return loss, torch.autograd.grad(3 * loss, leaves)

    calls = []
    by_kernels = kernels.pooling_sigmoid_loss
    monkeypatch.setattr(
        kernels, "pooling_sigmoid_loss", lambda given: calls.append(1) or by_kernels(given)
    )
    fused, fused_gradients = loss_and_gradients()
    assert calls == [1]
    monkeypatch.setattr(comparison, "fits_fused_kernels", lambda image: False)
    eager, gradients = loss_and_gradients()
    torch.testing.assert_close(fused, eager, rtol=1e-5, atol=1e-5)
    for own, expected in zip(fused_gradients, gradients, strict=True):
        scale_of = max(1.0, expected.abs().max().item())
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-5 * scale_of)


@pytest.mark.parametrize("case", ["loss_single", "loss_single_trained_scale"])
def test_equals_published_loss(case, golden, kernels, assert_gradients):
    reference = golden(f"caft/{case}")
    keys = list(attention_pooling_keys("visual_proj.", ""))
    objective = CaftObjective(CaftConfig(), reference.hyper["D"])
    objective.attention_pooling.load_state_dict(rename(reference.group("param."), keys))
    with torch.no_grad():
        for own, published in (("part", ""), ("whole", "_coarse")):
            getattr(objective, f"{own}_log_scale").fill_(
                reference[f"in.logit_scale{published}"].log()
            )
            getattr(objective, f"{own}_bias").fill_(reference[f"in.logit_bias{published}"])
    names = ["coarse_global", "fine_global", "fine_local"]
    pooled, fine, tokens = (reference[f"in.image_{n}"].requires_grad_() for n in names)
    texts = reference["in.text_fine_global"].requires_grad_()
    terms = objective.sigmoid_terms(
        ImageFeatures(pooled, fine_pooled=fine, fine_tokens=tokens),
        TextFeatures(reference["in.text_coarse_global"], texts.unflatten(0, (len(pooled), -1))),
        Exchange(),
        published_draw(reference["in.negative_offsets"]),
    )
    expected = reference["out.ftcs_loss"]
    torch.testing.assert_close(terms["part_local"], expected, rtol=1e-5, atol=1e-5)
    sum(terms.values()).backward()
    for leaf, name in ((tokens, "image_fine_local"), (texts, "text_fine_global")):
        torch.testing.assert_close(leaf.grad, reference[f"grad.{name}"], rtol=1e-3, atol=1e-5)
    gradients = rename(reference.group("grad.param."), keys)
    assert_gradients(objective.attention_pooling, gradients)
