import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pretrain.models.blocks import Block
from pretrain.ops.graph_pooling import GraphPooling
from pretrain.ops.packing import pack_by_length
from pretrain.ops.recompute import CHOICES, set_recompute
from tests.pretrain.published import CAFT, build_pair, packed


def gradients(model, choice):
    set_recompute(model, choice)
    model.zero_grad()
    torch.manual_seed(1)  # of dropout
    images = torch.randn(2, 3, 224, 224)
    texts = torch.randint(1, 500, (2, 4, 16))
    texts[:, :, 9] = 511
    image, text = model.encode_image(images), model.encode_text(packed(texts))
    features = [*dict(image).values(), *dict(text).values()]
    sum(feature.square().sum() for feature in features).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("choice", ["elementwise", "blocks"])
def test_the_gradients_are_the_same(choice):
    torch.manual_seed(0)
    model = build_pair(CAFT, "caft")["model"].train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0  # its statistics are not those of two forwards
    expected = gradients(model, "none")
    found = gradients(model, choice)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.equal(found[name], gradient), name


def test_what_is_computed_again():
    """Norms, which are cheap, or products of matrices too."""
    products, norms = {}, {}
    for choice in CHOICES:
        block = Block(16, 2)
        set_recompute(block, choice)
        calls = []
        block.norm1.register_forward_hook(lambda *_, calls=calls: calls.append("norm"))
        output = block(torch.randn(7, 16), packing=pack_by_length(torch.tensor([0, 3, 7])))
        with FlopCounterMode(display=False) as flops:
            output.sum().backward()
        products[choice], norms[choice] = flops.get_total_flops(), len(calls)
    assert norms == {"none": 1, "elementwise": 2, "blocks": 2}
    assert products["elementwise"] == products["none"] < products["blocks"]


@pytest.mark.parametrize(("choice", "num_norms"), [("none", 1), ("elementwise", 2), ("blocks", 2)])
def test_a_pooling_is_computed_again(choice, num_norms):
    pooling = GraphPooling(24, 3)
    set_recompute(pooling, choice)
    calls = []
    pooling.norm.register_forward_hook(lambda *_: calls.append("norm"))
    tokens = torch.randn(2, 8, 24, requires_grad=True)
    _, pooled, _ = pooling(tokens[:, :1], tokens)
    pooled.sum().backward()
    assert len(calls) == num_norms
