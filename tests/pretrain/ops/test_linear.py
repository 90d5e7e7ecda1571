import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pretrain.ops.linear import MIN_ROWS, Linear, linear, linear_of, normed_linear


@pytest.mark.parametrize("shape", [(MIN_ROWS + 3, 24), (5, 61, 24)])
@pytest.mark.parametrize("has_bias", [True, False])
def test_equals_the_product_of_matrices(shape, has_bias, two_threads):
    torch.manual_seed(0)
    x, weight = torch.randn(shape, requires_grad=True), torch.randn(40, 24, requires_grad=True)
    bias = torch.randn(40, requires_grad=True) if has_bias else None
    leaves = [x, weight, *([bias] if has_bias else [])]
    cotangent = torch.randn(*shape[:-1], 40)
    found, expected = linear(x, weight, bias), F.linear(x, weight, bias)
    assert type(found.grad_fn).__name__ == "_ProductBackward"
    torch.testing.assert_close(found, expected)
    gradients = torch.autograd.grad((found * cotangent).sum(), leaves)
    for own, other in zip(
        gradients, torch.autograd.grad((expected * cotangent).sum(), leaves), strict=True
    ):
        torch.testing.assert_close(own, other)


def test_rows_that_do_not_lie_together(two_threads):
    """A slice of columns, and a gradient that is one number spread over all."""
    x = torch.randn(2 * MIN_ROWS, 32)[:, 8:].requires_grad_()
    layer = Linear(24, 16)
    layer(x).sum().backward()
    torch.testing.assert_close(layer.weight.grad, x.detach().sum(0).expand(16, -1))


@pytest.mark.parametrize("why", ["few rows", "one thread", "bfloat16", "autocast"])
def test_else_it_is_torchs_own(why, two_threads, set_num_threads):
    x, layer = torch.randn(MIN_ROWS, 24), Linear(24, 40)
    if why == "few rows":
        x = x[:-1]
    elif why == "one thread":
        set_num_threads(1)
    elif why == "bfloat16":
        x, layer = x.bfloat16(), layer.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=why == "autocast"):
        assert type(layer(x).grad_fn).__name__ == "AddmmBackward0"


def test_without_gradients_nothing_is_kept(two_threads):
    layer = Linear(24, 40)
    with torch.no_grad():
        assert layer(torch.randn(MIN_ROWS, 24)).grad_fn is None
    x = torch.randn(MIN_ROWS, 24)
    assert linear(x, layer.weight.detach(), layer.bias.detach()).grad_fn is None


@pytest.mark.parametrize("way", ["linear", "linear_of"])
def test_second_derivatives_are_refused(way, two_threads):
    x, layer = torch.randn(MIN_ROWS, 24, requires_grad=True), Linear(24, 40)
    result = layer(x) if way == "linear" else linear_of(F.gelu, layer.weight, layer.bias, x)
    (grad,) = torch.autograd.grad(result.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.square().sum().backward()


@pytest.mark.parametrize("norm_options", [{"bias": False}, {"elementwise_affine": False}])
@pytest.mark.parametrize("shape", [(24,), (5, 24), (0, 24), (2, 3, 24)])
def test_norms_without_parameters_and_inputs_of_any_shape(norm_options, shape):
    norm, layer = nn.LayerNorm(24, **norm_options), nn.Linear(24, 40)
    x = torch.randn(shape, requires_grad=True)
    leaves = [x, *norm.parameters(), *layer.parameters()]
    found = normed_linear(x, norm, layer.weight, layer.bias)
    expected = layer(norm(x))
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(y.square().sum(), leaves) for y in (found, expected)]
    for own, other in zip(*gradients, strict=True):
        torch.testing.assert_close(own, other)


def test_on_the_meta_device():
    norm, layer = nn.LayerNorm(24, device="meta"), nn.Linear(24, 40, device="meta")
    result = normed_linear(torch.randn(5, 24, device="meta"), norm, layer.weight, layer.bias)
    result.sum().backward()
    assert layer.weight.grad.shape == (40, 24)
