import pytest
import torch
from torch.nn import functional as F

from pretrain.ops.linear import MIN_ROWS, Linear, linear


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("shape", [(MIN_ROWS + 3, 24), (5, 61, 24)])
@pytest.mark.parametrize("has_bias", [True, False])
def test_equals_the_product_of_matrices(shape, has_bias, two_threads):
    torch.manual_seed(0)
    x, weight = torch.randn(shape, requires_grad=True), torch.randn(40, 24, requires_grad=True)
    bias = torch.randn(40, requires_grad=True) if has_bias else None
    leaves = [x, weight, *([bias] if has_bias else [])]
    cotangent = torch.randn(*shape[:-1], 40)
    found, expected = linear(x, weight, bias), F.linear(x, weight, bias)
    assert type(found.grad_fn).__name__ == "_LinearOfBackward"
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
def test_else_it_is_torchs_own(why, two_threads):
    x, layer = torch.randn(MIN_ROWS, 24), Linear(24, 40)
    if why == "few rows":
        x = x[:-1]
    elif why == "one thread":
        torch.set_num_threads(1)
    elif why == "bfloat16":
        x, layer = x.bfloat16(), layer.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=why == "autocast"):
        assert type(layer(x).grad_fn).__name__ == "AddmmBackward0"
