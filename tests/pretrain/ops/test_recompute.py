"""What the backward computes again, and that it gives the same gradients."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from pretrain.models.blocks import Block
from pretrain.ops.batch_norm import BatchNorm2d, commit_statistics
from pretrain.ops.graph_pooling import GraphPooling
from pretrain.ops.linear import linear_of, normed_linear
from pretrain.ops.normed_convolution import normed_convolution
from pretrain.ops.packing import pack_by_length
from pretrain.ops.recompute import set_recompute
from tests.pretrain.published import CAFT, build_pair, packed


def gradients(model, recompute):
    set_recompute(model, recompute)
    model.zero_grad()
    torch.manual_seed(1)  # of dropout
    images = torch.randn(2, 3, 224, 224)
    texts = torch.randint(1, 500, (2, 4, 16))
    texts[:, :, 9] = 511
    image, text = model.encode_image(images), model.encode_text(packed(texts))
    features = [*dict(image).values(), *dict(text).values()]
    sum(feature.square().sum() for feature in features).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_blocks_computed_again_give_the_same_gradients():
    torch.manual_seed(0)
    model = build_pair(CAFT, "caft")["model"].train()
    expected = gradients(model, False)
    found = gradients(model, True)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.equal(found[name], gradient), name


def test_blocks_are_computed_again():
    products = []
    for recompute in (False, True):
        block = Block(16, 2)
        set_recompute(block, recompute)
        output = block(torch.randn(7, 16), packing=pack_by_length(torch.tensor([0, 3, 7])))
        with FlopCounterMode(display=False) as flops:
            output.sum().backward()
        products.append(flops.get_total_flops())
    assert products[0] < products[1]


def test_a_pooling_is_computed_again():
    calls = []
    for recompute in (False, True):
        pooling = GraphPooling(24, 3)
        set_recompute(pooling, recompute)
        pooling.attention.project.register_forward_hook(lambda *_: calls.append("attention"))
        tokens = torch.randn(2, 8, 24, requires_grad=True)
        _, pooled, _ = pooling(tokens[:, :1], tokens)
        pooled.sum().backward()
    assert len(calls) == 3


def kept(compute):
    """Sizes of the tensors that a forward keeps for the backward."""
    sizes = []

    def pack(tensor):
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = compute()
    return result, sizes


@pytest.mark.parametrize("num_rows", [7, 300])  # by torch's products, by convolutions
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("what", ["norm", "activation"])
def test_linear_of_keeps_only_what_its_function_reads(what, precision, num_rows):
    torch.manual_seed(0)
    x = torch.randn(2, num_rows, 24, requires_grad=True)
    norm, layer = nn.LayerNorm(24), nn.Linear(24, 40)
    leaves = [x, layer.weight, layer.bias]
    if what == "norm":
        leaves += list(norm.parameters())

    def lean():
        if what == "norm":
            return normed_linear(x, norm, layer.weight, layer.bias)
        return linear_of(F.gelu, layer.weight, layer.bias, x)

    def plain():
        return layer(norm(x) if what == "norm" else F.gelu(x))

    cotangent = torch.randn(2, num_rows, 40)
    results = {}
    for name, way in (("lean", lean), ("plain", plain)):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            result, sizes = kept(way)
        assert result.dtype == precision
        found = torch.autograd.grad(result.float().mul(cotangent).sum(), leaves)
        results[name] = [result, *found]
        assert (sizes.count(x.numel()) == 1) == (name == "lean")
    for own, other in zip(*results.values(), strict=True):
        assert own.dtype == other.dtype
        torch.testing.assert_close(own, other)


def test_linear_of_asks_for_no_gradient_that_nobody_wants():
    x, layer = torch.randn(5, 8), nn.Linear(8, 8).requires_grad_(False)
    norm = nn.LayerNorm(8)
    norm.bias.requires_grad_(False)
    normed_linear(x, norm, layer.weight, layer.bias).sum().backward()
    assert norm.weight.grad is not None
    assert x.grad is norm.bias.grad is layer.weight.grad is layer.bias.grad is None


def test_normed_convolution_keeps_only_what_it_normalises():
    torch.manual_seed(0)
    results = []
    for is_lean in (False, True):
        torch.manual_seed(1)
        x = torch.randn(2, 6, 9, 9, requires_grad=True)
        norm, convolution = BatchNorm2d(6), nn.Conv2d(6, 4, 3, stride=2, padding=1, bias=False)
        nn.init.uniform_(norm.weight)
        leaves = [x, *norm.parameters(), convolution.weight]

        def compute(is_lean=is_lean, x=x, norm=norm, convolution=convolution):
            if is_lean:
                return normed_convolution(x, norm, convolution)
            return convolution(norm(x).relu())

        result, sizes = kept(compute)
        assert (sizes.count(x.numel()) == 1) == is_lean
        gradients = torch.autograd.grad((result * torch.randn(2, 4, 5, 5)).sum(), leaves)
        commit_statistics(norm)
        buffers = [norm.running_mean, norm.running_var, norm.num_batches_tracked]
        results.append([result, *gradients, *buffers])
    for plain, lean in zip(*results, strict=True):
        assert torch.equal(plain, lean)
