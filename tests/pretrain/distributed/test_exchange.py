"""Two and three gloo processes against one."""

import pytest
import torch

from pretrain.distributed.exchange import Exchange
from pretrain.models.features import ImageFeatures, TextFeatures
from pretrain.objectives.caft import CaftConfig, CaftObjective
from pretrain.objectives.clip import ClipConfig, ClipObjective
from pretrain.objectives.siglip import SiglipConfig, SiglipObjective
from tests.pretrain.distributed.processes import launch, run_rank

WIDTH, NUM_SAMPLES, NUM_TEXTS = 16, 12, 3
OBJECTIVES = ["clip", "siglip", "caft"]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Results of every case on each of some ranks, from one launch per number of ranks."""
    launched = {}

    def results(world_size):
        if world_size not in launched:
            launched[world_size] = launch(__file__, tmp_path_factory.mktemp("ranks"), world_size)
        return launched[world_size]

    return results


def exchange_by_hand(rank):
    exchange = Exchange()
    x = torch.full((2, 3), float(rank), requires_grad=True)
    gathered = exchange.gather(x)
    order = []
    # Every rank weighs what comes from rank s by 10 s + its own number.
    loss = (gathered * (rank + 1)).sum()
    for source, chunk in exchange.ring(x):
        order.append((source, chunk.mean().item()))
        loss = loss + (10 * source + rank) * chunk.sum()
    loss.backward()
    return {"gathered": gathered.detach(), "order": order, "grad": x.grad}


def test_gather_and_ring_carry_features_and_gradients(ranks):
    for rank, result in enumerate(result["by hand"] for result in ranks(3)):
        assert result["gathered"][:, 0].tolist() == [0, 0, 1, 1, 2, 2]
        # Own first, then from the left.
        assert result["order"] == [((rank - d) % 3, (rank - d) % 3) for d in range(3)]
        expected = (1 + 2 + 3) + sum(10 * rank + other for other in range(3))
        assert (result["grad"] == expected).all()


def test_alone():
    exchange = Exchange()
    x = torch.randn(2, 3)
    assert (exchange.rank, exchange.world_size) == (0, 1)
    assert exchange.gather(x) is x
    assert [(source, chunk is x) for source, chunk in exchange.ring(x)] == [(0, True)]


def build(name):
    torch.manual_seed(0)
    if name == "clip":
        return ClipObjective(ClipConfig())
    if name == "siglip":
        return SiglipObjective(SiglipConfig())
    return CaftObjective(CaftConfig(loss_form="softmax"), WIDTH)


def features(batch):
    generator = torch.Generator().manual_seed(1)
    shapes = {
        "pooled": (batch, WIDTH),
        "fine_pooled": (batch, WIDTH),
        "fine_tokens": (batch, 5, WIDTH),
        "whole": (batch, WIDTH),
        "parts": (batch, NUM_TEXTS, WIDTH),
    }
    drawn = torch.randint(NUM_TEXTS, (batch,), generator=generator)
    return {n: torch.randn(*shape, generator=generator) for n, shape in shapes.items()}, drawn


def loss_and_gradients(rank, world_size, name):
    """Of one rank that holds its share of the samples."""
    objective = build(name)
    tensors, drawn = features(NUM_SAMPLES)
    share = slice(rank * NUM_SAMPLES // world_size, (rank + 1) * NUM_SAMPLES // world_size)
    own = {n: t[share].clone().requires_grad_() for n, t in tensors.items()}
    image = ImageFeatures(
        own["pooled"], fine_pooled=own["fine_pooled"], fine_tokens=own["fine_tokens"]
    )
    text = TextFeatures(own["whole"], own["parts"])
    if isinstance(objective, CaftObjective):
        terms = objective.softmax_terms(image, text, Exchange(), drawn[share])
    else:
        terms = objective(image, text, Exchange())
    loss = sum(terms.values())
    loss.backward()
    gradients = {n: t.grad for n, t in own.items() if t.grad is not None}
    parameters = {n: p.grad for n, p in objective.named_parameters()}
    return {"loss": loss.detach(), "features": gradients, "parameters": parameters}


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("world_size", [2, 3])
def test_many_ranks_equal_one(world_size, name, ranks):
    """The mean of the ranks' losses, and its gradients, are those of all samples in one process."""
    one = loss_and_gradients(0, 1, name)
    results = [result[name] for result in ranks(world_size)]
    torch.testing.assert_close(sum(r["loss"] for r in results) / world_size, one["loss"])
    for key, gradient in one["features"].items():
        joined = torch.cat([r["features"][key] for r in results]) / world_size
        torch.testing.assert_close(joined, gradient, rtol=1e-4, atol=1e-6)
    for key, gradient in one["parameters"].items():
        averaged = sum(r["parameters"][key] for r in results) / world_size
        torch.testing.assert_close(averaged, gradient, rtol=1e-4, atol=1e-5)


def all_results(rank, world_size):
    results = {name: loss_and_gradients(rank, world_size, name) for name in OBJECTIVES}
    return results | {"by hand": exchange_by_hand(rank)}


if __name__ == "__main__":
    run_rank(all_results)
