import torch

from pretrain.ops.segment_mean import nearest_live, segment_centroids, segment_means


def test_means_and_empty_segments():
    features = torch.tensor([[[1.0, 0.0], [3.0, 2.0], [5.0, 5.0]], [[2.0, 2.0]] * 3])
    labels = torch.tensor([[0, 0, 3], [1, 1, 1]])
    (means, sums), empty = segment_means((features, features.sum(2, keepdim=True)), labels, 4)
    assert means[0].tolist() == [[2, 1], [0, 0], [0, 0], [5, 5]]
    assert means[1].tolist() == [[0, 0], [2, 2], [0, 0], [0, 0]]
    assert torch.equal(sums, means.sum(2, keepdim=True))
    assert empty.tolist() == [[False, True, True, False], [True, False, True, True]]


def test_gradient_is_shared_by_the_members():
    features = torch.zeros(1, 3, 1, requires_grad=True)
    (means,), _ = segment_means((features,), torch.tensor([[0, 0, 1]]), 2)
    (means * torch.tensor([[[2.0], [5.0]]])).sum().backward()
    assert features.grad.flatten().tolist() == [1, 1, 5]


def test_centroids_in_pixels():
    labels = torch.tensor([[[0, 0, 2], [0, 0, 2]]])
    centroids = segment_centroids(labels, 3)
    assert centroids[0].tolist() == [[0.5, 0.5], [0, 0], [0.5, 2]]


def test_dead_segments_look_to_the_nearest_live_one():
    centroids = torch.tensor([[[0.0, 0.0], [0.0, 1.0], [0.0, 4.0], [0.0, 9.0]]])
    dead = torch.tensor([[False, True, True, False]])
    assert nearest_live(centroids, dead).tolist() == [[0, 0, 0, 3]]
