import torch

from pretrain.models.features import ImageFeatures, SegmentHierarchy, TextFeatures


def image_features():
    hierarchy = SegmentHierarchy(
        labels=torch.tensor([[[0, 1], [2, 2]]] * 4),
        assignments=[torch.tensor([[[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]] * 4)],
    )
    return ImageFeatures(torch.randn(4, 8), fine_tokens=torch.randn(4, 3, 8), hierarchy=hierarchy)


def test_split_and_joined_again():
    whole = image_features()
    joined = ImageFeatures.concatenate([whole[:1], whole[1:3], whole[3:]])
    assert len(whole[1:3]) == 2
    assert torch.equal(joined.pooled, whole.pooled)
    assert torch.equal(joined.fine_tokens, whole.fine_tokens)
    assert torch.equal(joined.hierarchy.assignments[0], whole.hierarchy.assignments[0])
    assert joined.tokens is None


def test_map_reaches_every_tensor():
    doubled = image_features().to(torch.float64)
    assert doubled.pooled.dtype == doubled.hierarchy.assignments[0].dtype == torch.float64
    features = TextFeatures(torch.randn(2, 8, requires_grad=True)).detach()
    assert not features.whole.requires_grad
    assert [name for name, _ in features] == ["whole"]


def test_relevance_goes_down_to_the_pixels():
    hierarchy = image_features()[:1].hierarchy
    relevance = torch.tensor([[[1.0, 3.0]]])
    assert hierarchy.to_pixels(relevance, level=1).tolist() == [[[[1, 2], [3, 3]]]]
    relevance = torch.tensor([[[5.0, 6.0, 7.0]]])
    assert hierarchy.to_pixels(relevance, level=0).tolist() == [[[[5, 6], [7, 7]]]]


def test_segments_of_each_level():
    hierarchy = image_features()[:1].hierarchy
    assert hierarchy.segments(0).tolist() == [[[0, 1], [2, 2]]]
    assert hierarchy.segments(1).tolist() == [[[0, 0], [1, 1]]]
