"""Two and three gloo processes against one, and against the published code."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from pretrain.distributed.exchange import Exchange
from pretrain.models.features import ImageFeatures, TextFeatures
from pretrain.objectives.caft import CaftConfig, CaftObjective
from pretrain.objectives.clip import ClipConfig, ClipObjective
from pretrain.objectives.siglip import SiglipConfig, SiglipObjective

WIDTH, NUM_SAMPLES, NUM_TEXTS = 16, 12, 3
OBJECTIVES = ["clip", "siglip", "caft"]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Results of every case on each of some ranks, from one launch per number of ranks."""
    launched = {}

    def results(world_size):
        if world_size not in launched:
            launched[world_size] = launch(tmp_path_factory.mktemp("ranks"), world_size)
        return launched[world_size]

    return results


@pytest.fixture(scope="module")
def published_ranks(golden, pooling_from_published, tmp_path_factory):
    """Results on the inputs of the published code."""

    def results(world_size):
        folder = tmp_path_factory.mktemp("published")
        reference = golden(f"caft/loss_{world_size}rank")
        pooling = pooling_from_published(reference.group("param.visual_proj."))
        torch.save((reference.tensors, pooling, reference.hyper["D"]), folder / "published.pt")
        return launch(folder, world_size)

    return results


def launch(folder, world_size):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, __file__, str(folder), str(world_size), str(port)]
    processes = [subprocess.Popen([*command, str(rank)]) for rank in range(world_size)]
    assert [process.wait(timeout=300) for process in processes] == [0] * world_size
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(world_size)]


def run_rank(folder, world_size, port, rank):
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    dist.init_process_group("gloo", rank=rank, world_size=world_size)
    if (folder / "published.pt").exists():
        published = torch.load(folder / "published.pt", weights_only=True)
        results = published_rank(rank, *published)
    else:
        results = {name: loss_and_gradients(rank, world_size, name) for name in OBJECTIVES}
        results["by hand"] = exchange_by_hand(rank)
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


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


def published_rank(rank, tensors, pooling, width):
    prefix = f"rank{rank}.in."
    image = ImageFeatures(
        tensors[f"{prefix}image_coarse_global"],
        fine_pooled=tensors[f"{prefix}image_fine_global"],
        fine_tokens=tensors[f"{prefix}image_fine_local"],
    ).map(lambda t: t.requires_grad_())
    batch = len(image)
    parts = tensors[f"{prefix}text_fine_global"].unflatten(0, (batch, -1))
    text = TextFeatures(tensors[f"{prefix}text_coarse_global"], parts)
    text = text.map(lambda t: t.detach().requires_grad_())
    objective = CaftObjective(CaftConfig(), width)
    objective.attention_pooling.load_state_dict(pooling)
    with torch.no_grad():
        objective.part_log_scale.copy_(tensors["in.logit_scale"].log())
        objective.whole_log_scale.copy_(tensors["in.logit_scale_coarse"].log())
        objective.part_bias.copy_(tensors["in.logit_bias"])
        objective.whole_bias.copy_(tensors["in.logit_bias_coarse"])
    drawn = torch.zeros(batch, batch, dtype=torch.int64)
    others = ~torch.eye(batch, dtype=torch.bool)
    drawn[others] = tensors[f"{prefix}negative_offsets"].flatten()
    terms = objective.sigmoid_terms(image, text, Exchange(), drawn)
    sum(terms.values()).backward()
    gradients = {
        "image_coarse_global": image.pooled.grad,
        "image_fine_global": image.fine_pooled.grad,
        "image_fine_local": image.fine_tokens.grad,
        "text_coarse_global": text.whole.grad,
        "text_fine_global": text.parts.grad.flatten(0, 1),
    }
    pooling_gradients = {n: p.grad for n, p in objective.attention_pooling.named_parameters()}
    return {
        "terms": {n: t.detach() for n, t in terms.items()},
        "gradients": gradients,
        "pooling": pooling_gradients,
    }


@pytest.mark.parametrize("world_size", [2, 3])
def test_caft_sigmoid_equals_published_ranks(
    world_size, published_ranks, golden, pooling_from_published
):
    reference = golden(f"caft/loss_{world_size}rank")
    for rank, result in enumerate(published_ranks(world_size)):
        for name, published in (("part_local", "ftcs"), ("part_global", "fmps"), ("whole", "cmps")):
            expected = reference[f"rank{rank}.out.{published}_loss"]
            torch.testing.assert_close(result["terms"][name], expected, rtol=1e-5, atol=1e-5)
        for name, gradient in result["gradients"].items():
            expected = reference[f"rank{rank}.grad.{name}"]
            torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-5)
        expected = pooling_from_published(reference.group(f"rank{rank}.grad.param.visual_proj."))
        for name, gradient in result["pooling"].items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-5)


if __name__ == "__main__":
    run_rank(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
