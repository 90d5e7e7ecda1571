"""The losses of the ring in one process, against autograd on all pairs at once."""

import weakref

import pytest
import torch
from torch.nn import functional as F

from pretrain.distributed.exchange import Exchange
from pretrain.objectives import comparison as comparison_module
from pretrain.objectives.candidates import draw_texts, own_and_drawn, owned
from pretrain.objectives.comparison import DotProducts, PooledCosines
from pretrain.objectives.contrastive import sigmoid_contrast
from pretrain.objectives.ring import ring_infonce, ring_normalisers, ring_sigmoid
from pretrain.ops.attention_pooling import AttentionPooling
from pretrain.ops.text_conditioned import chosen_cosines

BATCH, NUM_TEXTS, WIDTH = 9, 3, 16
WAYS = ["dot products", "pooled"]


class Inputs:
    """Features of images and texts, temperature, bias and pooling: all of them leaves."""

    def __init__(self, batch=BATCH):
        torch.manual_seed(0)
        self.pooling = AttentionPooling(WIDTH)
        self.tokens = torch.randn(batch, 7, WIDTH).requires_grad_()
        self.texts = torch.randn(batch, NUM_TEXTS, WIDTH).requires_grad_()
        self.drawn = draw_texts(batch, NUM_TEXTS, None)
        self.scale, self.bias = (torch.tensor([x]).requires_grad_() for x in (8.0, -2.0))

    def leaves(self, way):
        shared = [self.tokens, self.texts, self.scale]
        return shared if way == "dot products" else [*shared, *self.pooling.parameters()]

    def comparison(self, way, bias=None, chunk_size=0):
        if way == "dot products":
            return DotProducts(F.normalize(self.tokens[:, 0], dim=1), self.scale, bias)
        image = self.pooling.project_tokens(self.tokens)
        return PooledCosines(self.pooling, image, self.scale, bias, chunk_size)

    def texts_for(self, way):
        return F.normalize(self.texts, dim=2) if way == "dot products" else self.texts

    def logits(self, way):
        """(B, B * K) by autograd, all pairs at once."""
        flat = self.texts.flatten(0, 1)
        if way == "dot products":
            images = F.normalize(self.tokens[:, 0], dim=1)
            return self.scale * images @ F.normalize(flat, dim=1).T
        every = torch.arange(len(flat)).expand(len(self.tokens), -1)
        image = self.pooling.project_tokens(self.tokens)
        return self.scale * chosen_cosines(self.pooling, image, flat, every, 0)


@pytest.fixture(autouse=True)
def double_precision():
    """Sums in another order agree far more closely than anything wrong would."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(params=[0, 1, 2], ids=["all at once", "one image", "two images"])
def chunk_size(request, monkeypatch):
    """Images at once, for both ways of comparing."""
    if request.param:
        numbers = request.param * BATCH * NUM_TEXTS
        monkeypatch.setattr(comparison_module, "MAX_NUMBERS", numbers)
    return request.param


def assert_same_gradients(value, expected, leaves):
    """Of three times the value, and less what only one of the two depends on."""
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    gradients = torch.autograd.grad(3 * value, leaves, retain_graph=True, allow_unused=True)
    others = torch.autograd.grad(3 * expected, leaves, allow_unused=True)
    for own, other in zip(gradients, others, strict=True):
        assert (own is None) == (other is None)
        if own is not None:
            torch.testing.assert_close(own, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("way", "with_draws"), [("dot products", False), ("pooled", False), ("pooled", True)]
)
def test_sigmoid(way, with_draws, chunk_size):
    inputs = Inputs()
    comparison = inputs.comparison(way, inputs.bias, chunk_size)
    drawn = inputs.drawn if with_draws else None
    loss = ring_sigmoid(comparison, inputs.texts_for(way), Exchange(), drawn)

    logits = inputs.logits(way) + inputs.bias
    positive = owned(torch.arange(BATCH * NUM_TEXTS).expand(BATCH, -1), NUM_TEXTS)
    if with_draws:
        chosen = own_and_drawn(inputs.drawn, NUM_TEXTS)
        logits, positive = logits.gather(1, chosen), owned(chosen, NUM_TEXTS)
    expected = sigmoid_contrast(logits, positive)
    assert_same_gradients(loss, expected, [*inputs.leaves(way), inputs.bias])


@pytest.mark.parametrize("with_draws", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_infonce(way, with_draws, chunk_size):
    inputs = Inputs()
    logits = inputs.logits(way)
    rows = torch.arange(BATCH)
    true = logits.unflatten(1, (BATCH, NUM_TEXTS))[rows, rows]
    texts, shown = inputs.texts_for(way), None
    columns = torch.arange(BATCH * NUM_TEXTS)
    if with_draws:
        shown = torch.randint(NUM_TEXTS, (BATCH, 1))
        texts = texts[rows.unsqueeze(1), shown]
        columns = rows * NUM_TEXTS + shown[:, 0]
    comparison = inputs.comparison(way, chunk_size=chunk_size)
    loss = ring_infonce(comparison, texts, true, Exchange(), shown)

    met, images = logits[:, columns], columns // NUM_TEXTS
    others = met.masked_fill(images == rows.unsqueeze(1), -torch.inf)
    over_texts = true - torch.stack([true, *others.T.unsqueeze(2).expand(-1, -1, 3)]).logsumexp(0)
    over_images = met.log_softmax(dim=0)[images, torch.arange(len(images))]
    expected = -(over_texts.mean() + over_images.mean()) / 2
    assert_same_gradients(loss, expected, inputs.leaves(way))


def test_the_gradients_of_both_normalisers_are_apart(chunk_size):
    inputs = Inputs()
    comparison = inputs.comparison("dot products")
    sides = ring_normalisers(comparison, inputs.texts_for("dot products"), Exchange())
    own = torch.eye(BATCH, dtype=torch.bool).repeat_interleave(NUM_TEXTS, dim=1)
    logits = inputs.logits("dot products")
    expected = [
        logits.masked_fill(own, -torch.inf).logsumexp(dim=1),
        logits.logsumexp(dim=0).view(BATCH, NUM_TEXTS),
    ]
    for side, other in zip(sides, expected, strict=True):
        weights = torch.randn_like(other)
        (given,) = torch.autograd.grad((weights * side).sum(), inputs.texts, retain_graph=True)
        (wanted,) = torch.autograd.grad((weights * other).sum(), inputs.texts, retain_graph=True)
        torch.testing.assert_close(given, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("way", WAYS)
def test_one_image_has_no_negatives(way):
    inputs = Inputs(batch=1)
    true = inputs.logits(way)
    loss = ring_infonce(inputs.comparison(way), inputs.texts_for(way), true, Exchange())
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    for gradient in torch.autograd.grad(loss, inputs.leaves(way), allow_unused=True):
        assert gradient is None or torch.allclose(gradient, torch.zeros_like(gradient), atol=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_without_gradients_there_are_none(way):
    inputs = Inputs()
    expected = ring_sigmoid(inputs.comparison(way), inputs.texts_for(way), Exchange())
    with torch.no_grad():
        loss = ring_sigmoid(inputs.comparison(way), inputs.texts_for(way), Exchange())
    torch.testing.assert_close(loss, expected.detach())
    assert not loss.requires_grad


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("loss", [ring_sigmoid, ring_normalisers])
def test_nothing_of_the_size_of_the_pairs_is_kept(way, loss):
    """What is kept for the backward has the size of texts and tokens."""
    inputs = Inputs(batch=200)
    comparison, texts = inputs.comparison(way), inputs.texts_for(way)
    seen = []

    def pack(tensor):
        seen.append(weakref.ref(tensor))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = loss(comparison, texts, Exchange())
    kept = [tensor for tensor in (reference() for reference in seen) if tensor is not None]
    assert result is not None and kept
    assert max(tensor.numel() for tensor in kept) <= 200 * 8 * WIDTH < 200 * 200 * NUM_TEXTS


@pytest.mark.parametrize("num_texts", [1, 3, 8, 300])
def test_a_draw_is_that_of_all_texts_at_once(num_texts):
    """Runs that were begun before tables were small go on with the same texts."""
    one, other = (torch.Generator().manual_seed(7) for _ in range(2))
    expected = torch.randint(num_texts, (33, 33), generator=other)
    assert torch.equal(draw_texts(33, num_texts, one).long(), expected)
    assert torch.equal(torch.rand(3, generator=one), torch.rand(3, generator=other))


def test_candidates_of_some_images():
    drawn = draw_texts(7, NUM_TEXTS, None)
    every = own_and_drawn(drawn, NUM_TEXTS)
    assert torch.equal(own_and_drawn(drawn[2:5], NUM_TEXTS, 2), every[2:5])
    assert torch.equal(owned(every[2:5], NUM_TEXTS, 2), owned(every, NUM_TEXTS)[2:5])
