"""Maps land on the right pixels, and are scored against the right boxes."""

import pytest
import torch

from pretrain.data.transforms import ImageConfig, seen_box
from pretrain.evaluate.localisation import (
    box_mask,
    hot_region,
    moved_iou,
    score_map,
    summarise,
)
from pretrain.evaluate.maps import clip_box, normalised, peak, pixel_maps
from pretrain.models.features import SegmentHierarchy


def crafted_hierarchy() -> SegmentHierarchy:
    """A 4x4 image of four 2x2 superpixels; 0 and 3 form segment 1, the others segment 0."""
    rows, columns = torch.meshgrid(torch.arange(4) // 2, torch.arange(4) // 2, indexing="ij")
    labels = (rows * 2 + columns)[None]
    first = torch.tensor([[[0.0, 1.0], [1.0, 0.0], [0.75, 0.25], [0.0, 1.0]]])
    return SegmentHierarchy(labels=labels, assignments=[first, torch.ones(1, 2, 1)])


def test_relevance_of_segments_lands_on_their_pixels() -> None:
    relevance = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    maps = pixel_maps(relevance, crafted_hierarchy(), 4)
    expected = torch.tensor([[1.0, 0.0], [0.25, 1.0]]).repeat_interleave(2, 0)
    assert torch.equal(maps[0, 0], expected.repeat_interleave(2, 1))
    assert torch.equal(maps[0, 1], 1 - maps[0, 0])


def test_relevance_may_be_given_at_any_level() -> None:
    hierarchy = crafted_hierarchy()
    superpixels = pixel_maps(torch.arange(4.0)[None, None], hierarchy, 4)
    assert superpixels[0, 0, ::2, ::2].tolist() == [[0, 1], [2, 3]]
    coarsest = pixel_maps(torch.tensor([[[0.5]]]), hierarchy, 4)
    assert torch.equal(coarsest, torch.full((1, 1, 4, 4), 0.5))


def test_without_a_hierarchy_tokens_lie_on_a_grid() -> None:
    maps = pixel_maps(torch.arange(4.0)[None, None], None, 4)
    assert maps[0, 0, 0].tolist() == [0, 0, 1, 1]
    assert maps[0, 0, 3].tolist() == [2, 2, 3, 3]
    with pytest.raises(ValueError, match="5 tokens"):
        pixel_maps(torch.zeros(1, 1, 5), None, 4)


def test_boxes_follow_the_part_of_the_picture_that_is_seen() -> None:
    assert seen_box(240, 192, ImageConfig(resize="squash")) == (0, 0, 1, 1)
    seen = seen_box(200, 100, ImageConfig(resize="shortest"))
    assert seen == (0.25, 0, 0.75, 1)
    assert clip_box((0.5, 0.2, 0.75, 0.4), seen) == (0.5, 0.2, 1.0, 0.4)
    assert clip_box((0.0, 0.0, 0.5, 1.0), seen) == (0.0, 0.0, 0.5, 1.0)
    assert clip_box((0.8, 0.2, 0.9, 0.4), seen) is None


def test_the_peak_is_the_middle_of_the_hottest_segment() -> None:
    heat = torch.zeros(7, 9)
    heat[1:4, 4:9] = 1.0
    assert peak(heat) == (2, 6)


def test_the_peak_of_a_hollow_segment_lies_on_it() -> None:
    heat = torch.ones(5, 5)
    heat[1:4, 1:4] = 0.0
    row, column = peak(heat)
    assert heat[row, column] == 1.0


def test_normalised_maps_span_zero_to_one() -> None:
    maps = normalised(torch.stack([torch.arange(4.0).view(2, 2) + 3, torch.full((2, 2), 0.1)]))
    assert maps[0].flatten().tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert maps[1].tolist() == [[0, 0], [0, 0]]


def test_boxes_become_masks() -> None:
    mask = box_mask([(0.0, 0.0, 0.5, 0.25), (0.75, 0.75, 1.0, 1.0)], 4, 8)
    assert mask.nonzero().tolist() == [[0, 0], [0, 1], [0, 2], [0, 3], [3, 6], [3, 7]]
    assert box_mask([(0.51, 0.51, 0.52, 0.52)], 4, 4).nonzero().tolist() == [[2, 2]]


def test_a_map_on_the_box_beats_chance_and_one_beside_it_does_not() -> None:
    box = (0.5, 0.0, 1.0, 0.5)
    right = box_mask([box], 8, 8).float()
    score = score_map(right, 1 - right, [box])
    assert score.hit
    assert not score.hit_other
    assert score.area == 0.25
    assert score.iou == pytest.approx(1.0)
    assert score.iou_moved < 0.3
    wrong = score_map(1 - right, right, [box])
    assert not wrong.hit
    assert wrong.hit_other
    assert wrong.iou == 0.0


def test_the_hot_region_is_above_mean_and_deviation() -> None:
    heat = torch.zeros(4, 4)
    heat[0, 0] = 1.0
    assert hot_region(heat).sum() == 1
    assert hot_region(torch.ones(4, 4)).all()


def test_iou_of_moved_regions_is_the_mean_over_all_places() -> None:
    region = box_mask([(0.0, 0.0, 0.5, 0.25)], 4, 4)
    target = box_mask([(0.25, 0.25, 0.75, 1.0)], 4, 4)
    values = []
    for row in range(4):
        for column in range(4):
            moved = region.roll((row, column), (0, 1))
            values.append(((moved & target).sum() / (moved | target).sum()).item())
    assert moved_iou(region, target) == pytest.approx(sum(values) / 16)


def test_the_summary_is_a_mean_and_tells_sizes_apart() -> None:
    small, large = (0.0, 0.0, 0.125, 0.125), (0.0, 0.0, 1.0, 0.5)
    scores = [
        score_map(box_mask([small], 8, 8).float(), torch.zeros(8, 8), [small]),
        score_map(1 - box_mask([large], 8, 8).float(), torch.zeros(8, 8), [large]),
    ]
    result = summarise(scores, num_images=2)
    assert result is not None
    assert result.num_sentences == 2
    assert result.pointing == 0.5
    assert result.pointing_chance == pytest.approx((1 / 64 + 1 / 2) / 2)
    assert (result.by_size["small"].pointing, result.by_size["large"].pointing) == (1.0, 0.0)
    assert "medium" not in result.by_size
    assert summarise([], num_images=0) is None
