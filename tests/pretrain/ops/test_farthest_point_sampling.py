import pytest
import torch

from pretrain.ops.farthest_point_sampling import farthest_point_sampling


def sequential(tokens, num_samples, masked):
    """The definition, one distance at a time."""
    picks = []
    for image in range(len(tokens)):
        points = tokens[image].double()
        live = ~masked[image]
        mean = points[live].mean(0)
        points = torch.where(live.unsqueeze(1), points, mean)
        points = torch.cat([mean.unsqueeze(0), points])
        nearest = torch.full((len(points),), torch.inf, dtype=torch.float64)
        pick = 0
        for _ in range(num_samples):
            nearest = torch.minimum(nearest, (points - points[pick]).square().sum(1))
            pick = int(nearest.argmax())
            picks.append(pick - 1)
    return torch.tensor(picks).view(len(tokens), num_samples)


def test_equals_sequential_sampling():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(5, 60, 24, generator=generator)
    masked = torch.rand(5, 60, generator=generator) < 0.2
    picks = farthest_point_sampling(tokens, 20, masked)
    assert torch.equal(picks, sequential(tokens, 20, masked))
    assert not masked.gather(1, picks).any()


def test_far_from_the_origin():
    """Distances come from a matrix product: a common offset must not drown them."""
    tokens = torch.randn(2, 30, 8, generator=torch.Generator().manual_seed(1)) + 1000
    masked = torch.zeros(2, 30, dtype=torch.bool)
    assert torch.equal(farthest_point_sampling(tokens, 8), sequential(tokens, 8, masked))


def test_first_pick_is_farthest_from_the_mean():
    tokens = torch.tensor([[[0.0], [1.0], [2.0], [9.0]]])
    assert farthest_point_sampling(tokens, 2).tolist() == [[3, 0]]


def test_fewer_live_tokens_than_samples():
    tokens = torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(2))
    masked = torch.tensor([[True, False, True, True, False, True]])
    picks = farthest_point_sampling(tokens, 4, masked)
    assert set(picks[0, :2].tolist()) == {1, 4}
    assert picks.min() >= 0


@pytest.mark.parametrize("case", ["masked", "nomask", "heavy_padding"])
def test_picks_what_the_published_code_picks(case, golden):
    reference = golden(f"caft/graph_pool_{case}")
    masked = None if reference.hyper["mask_is_None"] else reference["in.mask"]
    picks = farthest_point_sampling(reference["in.tokens"], reference.hyper["num_clusters"], masked)
    assert torch.equal(picks, reference["out.sampled_inds"])
