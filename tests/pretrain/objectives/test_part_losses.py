import pytest
import torch
from torch.nn import functional as F

from pretrain.objectives.candidates import own_and_drawn, owned
from pretrain.objectives.contrastive import sigmoid_contrast
from pretrain.objectives.part_losses import PartLosses
from pretrain.ops.attention_pooling import AttentionPooling
from pretrain.ops.text_conditioned import chosen_cosines

BATCH, NUM_TEXTS, WIDTH = 9, 3, 16


@pytest.fixture
def inputs():
    torch.manual_seed(0)
    pooling = AttentionPooling(WIDTH)
    tokens = torch.randn(BATCH, 7, WIDTH).requires_grad_()
    # Of this rank and of another.
    texts = [torch.randn(BATCH, NUM_TEXTS, WIDTH).requires_grad_() for _ in range(2)]
    chosen = [own_and_drawn(torch.randint(NUM_TEXTS, (BATCH, BATCH)), NUM_TEXTS) for _ in texts]
    scale, bias = (torch.tensor([x]).requires_grad_() for x in (8.0, -2.0))
    return pooling, tokens, texts, chosen, scale, bias


def leaves_of(inputs):
    pooling, tokens, texts, _, scale, bias = inputs
    return [tokens, *texts, scale, bias, *pooling.parameters()]


def sums(inputs, chunk_size):
    pooling, tokens, texts, chosen, scale, bias = inputs
    image = pooling.project_tokens(tokens)
    pooled = F.normalize(tokens[:, 0], dim=1)
    losses = PartLosses(pooling, image, pooled, scale, bias, chunk_size)
    for rank in range(2):
        losses.add(texts[rank], chosen[rank], is_own=rank == 0)
    return losses.sums()


def plain_sums(inputs):
    """By autograd, all pairs at once."""
    pooling, tokens, texts, chosen, scale, bias = inputs
    image = pooling.project_tokens(tokens)
    local = whole = 0
    for rank in range(2):
        flat = texts[rank].flatten(0, 1)
        cosines = chosen_cosines(pooling, image, flat, chosen[rank], 0)
        positive = owned(chosen[rank], NUM_TEXTS) if rank == 0 else None
        local = local + sigmoid_contrast(scale * cosines + bias, positive)
        cosines = F.normalize(tokens[:, 0], dim=1) @ F.normalize(flat, dim=1).T
        every = torch.arange(len(flat)).expand(BATCH, -1)
        positive = owned(every, NUM_TEXTS) if rank == 0 else None
        whole = whole + sigmoid_contrast(scale * cosines + bias, positive)
    return local, whole


@pytest.mark.parametrize("chunk_size", [0, 1, 2])
def test_gradients_computed_at_once_are_those_of_autograd(chunk_size, inputs):
    local, whole = sums(inputs, chunk_size)
    expected_local, expected_whole = plain_sums(inputs)
    torch.testing.assert_close(local, expected_local)
    torch.testing.assert_close(whole, expected_whole)
    leaves = leaves_of(inputs)
    gradients = torch.autograd.grad(3 * local + 0.5 * whole, leaves)
    expected = torch.autograd.grad(3 * expected_local + 0.5 * expected_whole, leaves)
    for own, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5)


def test_without_gradients_there_are_none(inputs):
    with torch.no_grad():
        local, _ = sums(inputs, 2)
        torch.testing.assert_close(local, plain_sums(inputs)[0])
    assert not local.requires_grad


def test_memory_does_not_grow_with_the_pairs(inputs):
    """What is kept for the backward has the size of texts and tokens."""
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        sums(inputs, 1)[0]
    pairs = BATCH * (BATCH + NUM_TEXTS - 1) * WIDTH
    largest = max(tensor.numel() for tensor in kept)
    assert largest <= BATCH * 8 * WIDTH < pairs  # tokens and the zero key
