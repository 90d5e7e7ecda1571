"""What the backward computes again, and that it gives the same gradients."""

from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from pretrain.models.blocks import Block
from pretrain.ops.batch_norm import BatchNorm2d, commit_statistics
from pretrain.ops.graph_pooling import GraphPooling
from pretrain.ops.linear import linear_of, normed_linear
from pretrain.ops.normed_convolution import normed_convolution
from pretrain.ops.packing import pack_by_length
from pretrain.ops.recompute import set_recompute
from tests.pretrain.plain import plain_block, plain_graph_pooling
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


@pytest.mark.parametrize("kind", ["block", "ends", "first token", "pooling"])
def test_parts_computed_again_on_two_threads_give_the_same_gradients(kind, two_threads):
    torch.manual_seed(0)
    module = GraphPooling(24, 4) if kind == "pooling" else Block(24, 2)
    x = torch.randn(300, 24, requires_grad=True)
    dense = x.unflatten(0, (2, 150))
    packing = pack_by_length(torch.tensor([0, 100, 300]))
    ways = {
        "block": lambda: (module(x, packing=packing),),
        "ends": lambda: (module(x, packing=packing, only_one=True),),
        "first token": lambda: (module(dense, only_one=True),),
        "pooling": lambda: module(dense[:, :1], dense[:, 1:]),
    }
    found = []
    for recompute in (False, True):
        set_recompute(module, recompute)
        torch.manual_seed(1)  # of dropout
        loss = sum(result.square().sum() for result in ways[kind]())
        found.append(torch.autograd.grad(loss, [x, *module.parameters()]))
    for expected, gradient in zip(*found, strict=True):
        assert torch.equal(gradient, expected)


class Passes(TorchDispatchMode):
    """Counts the LayerNorms and GELUs of a forward and its backward."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in ("native_layer_norm", "gelu"):
            self.counts[name] += 1
        return function(*args, **(kwargs or {}))


def products_and_passes(module, recompute, *arguments, **keywords):
    """Multiply-accumulates of the forward and of the backward, and what they normed in all."""
    set_recompute(module, recompute)
    passes = Passes()
    with passes:
        with FlopCounterMode(display=False) as forward:
            result = module(*arguments, **keywords)
        loss = sum(x.sum() for x in (result if isinstance(result, tuple) else (result,)))
        with FlopCounterMode(display=False) as backward:
            loss.backward()
    macs = [counter.get_total_flops() // 2 for counter in (forward, backward)]
    return macs, passes.counts


@pytest.mark.parametrize("num_threads", [1, 2])
def test_of_a_block_all_but_the_last_product_is_computed_again(num_threads, set_num_threads):
    set_num_threads(num_threads)
    block, num_rows = Block(16, 2), 300
    x = torch.randn(num_rows, 16, requires_grad=True)
    packing = pack_by_length(torch.tensor([0, 100, 300]))
    square = num_rows * 16**2
    expected = {False: [12 * square, 24 * square], True: [12 * square, (24 + 8) * square]}
    for recompute in (False, True):
        macs, passes = products_and_passes(block, recompute, x, packing=packing)
        assert macs == expected[recompute]
        assert passes == {"native_layer_norm": 2 * 2, "gelu": 2}


def test_of_a_pooling_all_but_the_last_product_is_computed_again():
    pooling = GraphPooling(24, 3)
    tokens = torch.randn(2, 8, 24, requires_grad=True)
    arguments = (tokens[:, :1].detach(), tokens)
    (forward, backward), passes = products_and_passes(pooling, False, *arguments)
    macs, passes_again = products_and_passes(pooling, True, *arguments)
    last = 2 * 4 * 24**2  # of two class tokens
    assert macs == [forward, backward + forward - last]
    # Those of tokens, of what is pooled and of class tokens; and tokens are activated once more.
    assert passes == {"native_layer_norm": 2 * 5, "gelu": 2 + 1}
    assert passes_again == {"native_layer_norm": 2 * 5, "gelu": 2 * 2}


def test_a_pooling_is_computed_again_once():
    calls = []
    for recompute in (False, True):
        pooling = GraphPooling(24, 3)
        set_recompute(pooling, recompute)
        pooling.attention.project.register_forward_hook(lambda *_: calls.append("attention"))
        tokens = torch.randn(2, 8, 24, requires_grad=True)
        _, pooled, _ = pooling(tokens[:, :1], tokens)
        pooled.sum().backward()
    assert len(calls) == 3


def test_without_gradients_nothing_is_prepared_to_be_computed_again(monkeypatch):
    monkeypatch.setattr("pretrain.ops.recompute.checkpoint", None)
    pooling = GraphPooling(24, 3)
    tokens = torch.randn(2, 8, 24)
    for recompute in (False, True):
        set_recompute(pooling, recompute)
        with torch.no_grad():
            pooling(tokens[:, :1], tokens)


def kept(compute):
    """Sizes of the tensors that a forward keeps for the backward."""
    sizes = []

    def pack(tensor):
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = compute()
    return result, sizes


def rows_kept(compute, num_rows, width, parameters):
    """What a forward keeps, in rows of tokens: each piece of memory once, parameters not."""
    known = {p.untyped_storage().data_ptr() for p in parameters}
    kept_bytes = {}
    alive = []  # no address twice

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            alive.append(tensor)
            kept_bytes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = compute()
    return result, sum(kept_bytes.values()) / (4 * num_rows * width)


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("plain", 16),
        ("dense", 10),  # all but both norms' outputs, and what the GELU gives
        ("packed", 10),
        ("first token", 3 + 7 / 50),  # x, keys and values; the rest for one token of 50
        ("ends", 3 + 8 / 50),  # and what these tokens were
    ],
)
def test_what_a_block_keeps(kind, expected, num_threads, set_num_threads):
    """As docs/performance.md counts."""
    set_num_threads(num_threads)
    width, lengths = 128, [40, 40, 60, 60]
    block = Block(width, 2)
    x = torch.randn(200, width, requires_grad=True)
    packing = pack_by_length(torch.tensor([0, *lengths]).cumsum(0))
    dense = x.unflatten(0, (4, 50))
    ways = {
        "plain": lambda: plain_block(block, dense),
        "dense": lambda: block(dense),
        "packed": lambda: block(x, packing=packing),
        "first token": lambda: block(dense, only_one=True),
        "ends": lambda: block(x, packing=packing, only_one=True),
    }
    _, rows = rows_kept(ways[kind], 200, width, block.parameters())
    # And a number a row or head: of norms and of the attention.
    assert expected < rows < expected + 0.05


@pytest.mark.parametrize("num_threads", [1, 2])
def test_what_a_pooling_keeps(num_threads, set_num_threads):
    """Tokens, attention as in a block, node features three times, hidden features once."""
    set_num_threads(num_threads)
    width, num_tokens, num_clusters = 96, 256, 2
    pooling = GraphPooling(width, num_clusters).eval()
    x = torch.randn(2, 1 + num_tokens, width, requires_grad=True)
    ways = {
        1 + 4 + 3 + 4: lambda: pooling(x[:, :1], x[:, 1:])[0],
        # And both norms' outputs, and the activated hidden features.
        1 + 4 + 3 + 4 + 6: lambda: plain_graph_pooling(pooling, x, None),
    }
    for expected, way in ways.items():
        _, rows = rows_kept(way, 2 * num_tokens, width, pooling.parameters())
        assert expected < rows < expected + 0.5  # and the few clusters


@pytest.mark.parametrize("num_rows", [7, 300])  # by torch's products, by convolutions
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("what", ["norm", "activation", "product"])
def test_linear_of_keeps_only_what_its_function_reads(
    what, num_threads, precision, num_rows, set_num_threads
):
    set_num_threads(num_threads)
    torch.manual_seed(0)
    x = torch.randn(2, num_rows, 24, requires_grad=True)
    norm, layer = nn.LayerNorm(24), nn.Linear(24, 40)
    leaves = [x, layer.weight, layer.bias]
    if what == "norm":
        leaves += list(norm.parameters())
    square = torch.randn(24, 24)

    def activated_product(x):  # in the precision of autocast, in the backward too
        return F.gelu(x @ square)

    def lean():
        if what == "product":
            return linear_of(activated_product, layer.weight, layer.bias, x)
        if what == "norm":
            return normed_linear(x, norm, layer.weight, layer.bias)
        return linear_of(F.gelu, layer.weight, layer.bias, x)

    def plain():
        if what == "product":
            return layer(activated_product(x))
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


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_normed_convolution_keeps_only_what_it_normalises(precision):
    torch.manual_seed(0)
    results = []
    for is_lean in (False, True):
        torch.manual_seed(1)
        x = torch.randn(2, 6, 9, 9, dtype=precision, requires_grad=True)
        norm, convolution = BatchNorm2d(6), nn.Conv2d(6, 4, 3, stride=2, padding=1, bias=False)
        nn.init.uniform_(norm.weight)
        leaves = [x, *norm.parameters(), convolution.weight]

        def compute(is_lean=is_lean, x=x, norm=norm, convolution=convolution):
            if is_lean:
                return normed_convolution(x, norm, convolution)
            return convolution(norm(x).relu())

        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            result, sizes = kept(compute)
        assert result.dtype == precision
        assert (sizes.count(x.numel()) == 1) == is_lean
        gradients = torch.autograd.grad((result * torch.randn(2, 4, 5, 5)).sum(), leaves)
        commit_statistics(norm)
        buffers = [norm.running_mean, norm.running_var, norm.num_batches_tracked]
        results.append([result, *gradients, *buffers])
    for plain, lean in zip(*results, strict=True):
        assert plain.dtype == lean.dtype
        assert torch.equal(plain, lean)
