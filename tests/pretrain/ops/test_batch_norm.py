"""Statistics over the batches of all ranks, and the step that they wait for."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from pretrain.models.image.stem import ConvStem, StemConfig
from pretrain.models.registry import build_model
from pretrain.ops.batch_norm import BatchNorm2d, commit_statistics, discard_statistics
from pretrain.ops.normed_convolution import normed_convolution
from pretrain.ops.recompute import Recomputing
from tests.pretrain.distributed.processes import run_rank
from tests.pretrain.published import CAFT, FLAIR

NUM_SAMPLES, NUM_CHANNELS = 12, 6
RUNNING = ("running_mean", "running_var", "num_batches_tracked")


class Recomputed(Recomputing):
    """A norm alone, computed twice a step."""

    recompute = True

    def __init__(self):
        super().__init__()
        self.norm = BatchNorm2d(NUM_CHANNELS)

    def forward(self, x):
        return self.run(self.norm, x)


class Convolved(nn.Module):
    """As in the stem; or, as the reference, the same by torch's own norm."""

    def __init__(self, of_norm=BatchNorm2d):
        super().__init__()
        self.norm = of_norm(NUM_CHANNELS)
        self.convolution = nn.Conv2d(NUM_CHANNELS, NUM_CHANNELS, 3, padding=1, bias=False)

    def forward(self, x):
        if isinstance(self.norm, BatchNorm2d):
            return normed_convolution(x, self.norm, self.convolution)
        return self.convolution(self.norm(x).relu())


WAYS = {
    "norm": lambda: BatchNorm2d(NUM_CHANNELS),
    "cumulative": lambda: BatchNorm2d(NUM_CHANNELS, momentum=None),
    "recomputed": Recomputed,
    "convolved": Convolved,
}
REFERENCES = {
    "norm": lambda: nn.BatchNorm2d(NUM_CHANNELS),
    "cumulative": lambda: nn.BatchNorm2d(NUM_CHANNELS, momentum=None),
    "recomputed": lambda: nn.ModuleDict({"norm": nn.BatchNorm2d(NUM_CHANNELS)}),
    "convolved": lambda: Convolved(nn.BatchNorm2d),
}


def batch(step):
    """Samples that differ in mean and spread, so that every share has other statistics."""
    generator = torch.Generator().manual_seed(step)
    draw = torch.randn(NUM_SAMPLES, NUM_CHANNELS, 5, 5, generator=generator)
    scale = 1 + torch.arange(NUM_SAMPLES).view(-1, 1, 1, 1)
    return (draw * scale + scale).contiguous(memory_format=torch.channels_last)


def two_steps(module, rank=0, world_size=1):
    """What a rank with its share of the samples finds in the second of two training steps."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.uniform_(parameter, -1, 1)
    share = slice(rank * NUM_SAMPLES // world_size, (rank + 1) * NUM_SAMPLES // world_size)
    inner = module["norm"] if isinstance(module, nn.ModuleDict) else module
    for step in range(2):
        module.zero_grad()
        x = batch(step)[share].requires_grad_()
        result = inner(x)
        weights = torch.linspace(-1, 1, NUM_SAMPLES)[share].view(-1, 1, 1, 1)
        (result.square() * weights).sum().backward()
        commit_statistics(module)
    return {
        "result": result.detach(),
        "grad": x.grad,
        "parameters": {name: p.grad for name, p in module.named_parameters()},
        "state": {name: t for name, t in module.state_dict().items() if name.endswith(RUNNING)},
    }


def state_after_a_bad_batch(rank):
    """Of two steps, the first with a NaN on rank 0 alone."""
    norm = BatchNorm2d(NUM_CHANNELS)
    for value in (torch.nan if rank == 0 else 1.0, 1.0):
        x = batch(rank)
        x[0, 0, 0, 0] = value
        norm(x)
        commit_statistics(norm)
    return norm.state_dict()


def collectives_of_a_step():
    """Names of those that a norm and its convolution call, forward and backward."""
    called, whole = [], Convolved()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("all_gather_single", "all_reduce"):
            call = getattr(dist, name)
            patch.setattr(
                dist, name, lambda *args, name=name, call=call: (called.append(name), call(*args))
            )
        whole(batch(0).requires_grad_()).sum().backward()
    return called


def graph_breaks_of_a_stem():
    stem = ConvStem(StemConfig([6, 12], [2, 2]), 16).train()

    def projected(images):
        return stem.project(stem(images * 2)) * 2

    images = torch.randn(2, 3, 32, 32)
    explained = torch._dynamo.explain(projected)(images)
    compiled = torch.compile(projected, backend="eager")(images)
    return {"breaks": explained.graph_break_count, "same": torch.equal(compiled, projected(images))}


def all_results(rank, world_size):
    results = {name: two_steps(build(), rank, world_size) for name, build in WAYS.items()}
    if world_size == 2:
        results["bad"] = state_after_a_bad_batch(rank)
        results["collectives"] = collectives_of_a_step()
        results["graph"] = graph_breaks_of_a_stem()
    return results


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_normalise_as_one_process_with_the_whole_batch(world_size, name, ranks):
    one = two_steps(REFERENCES[name]())
    results = [result[name] for result in ranks(world_size)]
    for key in ("result", "grad"):
        joined = torch.cat([result[key] for result in results])
        torch.testing.assert_close(joined, one[key], rtol=1e-4, atol=1e-5)
    for key, gradient in one["parameters"].items():
        total = sum(result["parameters"][key] for result in results)
        torch.testing.assert_close(total, gradient, rtol=1e-4, atol=1e-4)
    for key, tensor in one["state"].items():
        torch.testing.assert_close(results[0]["state"][key], tensor)
        for result in results[1:]:  # rank 0's are saved for all
            assert torch.equal(result["state"][key], results[0]["state"][key])


def test_a_bad_batch_of_one_rank_moves_no_ranks_statistics(ranks):
    states = [result["bad"] for result in ranks(2)]
    for state in states:
        assert state["num_batches_tracked"] == 1
        assert all(tensor.isfinite().all() for tensor in state.values())
        assert torch.equal(state["running_mean"], states[0]["running_mean"])


def test_a_step_sends_twice_and_breaks_a_graph_once(ranks):
    for result in ranks(2):
        assert result["collectives"] == ["all_gather_single", "all_reduce"]
        assert result["graph"] == {"breaks": 1, "same": True}


def test_a_lone_rank_gets_what_torch_gives():
    for name in WAYS:
        own, torchs = two_steps(WAYS[name]()), two_steps(REFERENCES[name]())
        for key in ("result", "grad"):
            assert torch.equal(own[key], torchs[key])
        for key, gradient in torchs["parameters"].items():
            assert torch.equal(own["parameters"][key], gradient)


def test_statistics_move_once_a_step_and_only_when_it_counts():
    norm = BatchNorm2d(NUM_CHANNELS)
    fresh = {name: tensor.clone() for name, tensor in norm.state_dict().items()}

    def has_moved():
        return [n for n in RUNNING if not torch.equal(norm.state_dict()[n], fresh[n])]

    norm(batch(0))
    assert not has_moved()
    discard_statistics(norm)
    commit_statistics(norm)
    assert not has_moved()
    bad = batch(0)
    bad[3, 1] = torch.nan
    norm(bad)
    commit_statistics(norm)
    assert not has_moved()

    norm(batch(0))
    norm(batch(1))  # in its place, as when a step is computed again
    norm.eval()
    norm(batch(2))
    norm.train()
    for _ in range(2):  # the second finds nothing
        commit_statistics(norm)
    expected = nn.BatchNorm2d(NUM_CHANNELS)
    expected(batch(1))
    assert norm.state_dict().keys() == expected.state_dict().keys()
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(norm.state_dict()[name], tensor)
    torch.testing.assert_close(
        norm.eval()(batch(2)), expected.eval()(batch(2)), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("config", [CAFT, FLAIR], ids=["caft", "flair"])
def test_pieces_of_a_batch_that_passed_the_stem_whole(config):
    """Features and gradients are those of the batch in one piece."""
    torch.manual_seed(0)
    model = build_model(config).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    size = config.image.size
    images = torch.randn(4, 3, size, size) * torch.tensor([1.0, 2.0, 3.0, 4.0]).view(-1, 1, 1, 1)
    parameters = [p for p in model.image.parameters() if p.requires_grad]
    found = {}
    assert (model.stem_features(images) is None) == (config is FLAIR)
    for way in ("whole", "pieces", "apart"):
        stem = model.stem_features(images) if way == "pieces" else None
        pieces = [slice(0, 4)] if way == "whole" else [slice(0, 1), slice(1, 4)]
        features = [
            model.encode_image(images[piece], stem_features=None if stem is None else stem[piece])
            for piece in pieces
        ]
        pooled = torch.cat([part.pooled for part in features])
        loss = (pooled * torch.linspace(-1, 1, pooled.numel()).view_as(pooled)).sum()
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        found[way] = [pooled, *(g for g in gradients if g is not None)]
    for whole, pieces in zip(found["whole"], found["pieces"], strict=True):
        torch.testing.assert_close(pieces, whole, rtol=1e-4, atol=1e-5)
    if config is CAFT:
        assert not torch.allclose(found["apart"][0], found["whole"][0], rtol=1e-3, atol=1e-4)


if __name__ == "__main__":
    run_rank(all_results)
