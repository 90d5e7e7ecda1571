"""Does a sentence's map lie on the thing that the sentence names? Scored against boxes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pretrain.data.transforms import Box
from pretrain.evaluate.maps import peak

#: Upper ends of the box area, as a share of the image, by which results are also told apart.
SIZES = {"small": 0.05, "medium": 0.2, "large": 1.0}


@dataclass(frozen=True)
class MapScore:
    """One sentence's map against the boxes, or the mask, of the thing it names.

    Attributes:
        hit: whether the map's peak lies inside a box.
        hit_other: the same for the map of a sentence that names another thing.
        hit_centre: whether the centre of the image lies inside a box.
        area: share of the image that the boxes cover, which is the chance of a random point.
        iou: of the boxes with the map's hot region, the pixels above mean + one deviation.
        iou_moved: the same averaged over all places the hot region could be moved to.
    """

    hit: bool
    hit_other: bool
    hit_centre: bool
    area: float
    iou: float
    iou_moved: float


@dataclass(frozen=True)
class SizeResult:
    num_sentences: int
    pointing: float
    pointing_chance: float


@dataclass(frozen=True)
class LocalisationResult:
    """Means over all sentences; see `MapScore`. `iou_whole_image` takes the whole image as hot."""

    num_sentences: int
    num_images: int
    pointing: float
    pointing_chance: float
    pointing_other_sentence: float
    pointing_centre: float
    iou: float
    iou_chance: float
    iou_whole_image: float
    by_size: dict[str, SizeResult]


def score_map(heat: Tensor, other: Tensor, boxes: Sequence[Box]) -> MapScore:
    """Scores the map of a sentence, and that of another sentence, both (H, W), on one image."""
    return score_mask(heat, other, box_mask(boxes, *heat.shape))


def score_mask(heat: Tensor, other: Tensor, inside: Tensor) -> MapScore:
    """The same against any mask (H, W) bool of the thing, of one pixel at least, in place of boxes.

    A map that holds NaN hits nothing, and nothing of it is hot.
    """
    hot = hot_region(heat)
    return MapScore(
        hit=_hits(heat, inside),
        hit_other=_hits(other, inside),
        hit_centre=bool(inside[heat.shape[0] // 2, heat.shape[1] // 2]),
        area=inside.double().mean().item(),
        iou=((inside & hot).sum() / (inside | hot).sum()).item(),
        iou_moved=moved_iou(hot, inside),
    )


def _hits(heat: Tensor, inside: Tensor) -> bool:
    """Whether the peak of a map lies inside; a map that holds NaN points nowhere."""
    return not heat.isnan().any() and bool(inside[peak(heat)])


def summarise(scores: Sequence[MapScore], num_images: int) -> LocalisationResult | None:
    """Means over the sentences of `num_images` images; None when there was nothing to score."""
    if not scores:
        return None

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    by_size = {}
    lower = 0.0
    for name, upper in SIZES.items():
        chosen = [score for score in scores if lower < score.area <= upper]
        lower = upper
        if chosen:
            by_size[name] = SizeResult(
                num_sentences=len(chosen),
                pointing=mean([score.hit for score in chosen]),
                pointing_chance=mean([score.area for score in chosen]),
            )
    return LocalisationResult(
        num_sentences=len(scores),
        num_images=num_images,
        pointing=mean([score.hit for score in scores]),
        pointing_chance=mean([score.area for score in scores]),
        pointing_other_sentence=mean([score.hit_other for score in scores]),
        pointing_centre=mean([score.hit_centre for score in scores]),
        iou=mean([score.iou for score in scores]),
        iou_chance=mean([score.iou_moved for score in scores]),
        iou_whole_image=mean([score.area for score in scores]),
        by_size=by_size,
    )


def box_mask(boxes: Sequence[Box], height: int, width: int) -> Tensor:
    """(H, W) bool, the union of boxes given as fractions (left, top, right, bottom).

    A pixel is inside when its centre is; a box too small to hold a centre is one pixel.
    """
    rows = (torch.arange(height) + 0.5) / height
    columns = (torch.arange(width) + 0.5) / width
    mask = torch.zeros(height, width, dtype=torch.bool)
    for left, top, right, bottom in boxes:
        in_rows = (rows >= top) & (rows < bottom)
        in_columns = (columns >= left) & (columns < right)
        if not in_rows.any():
            in_rows[min(int((top + bottom) / 2 * height), height - 1)] = True
        if not in_columns.any():
            in_columns[min(int((left + right) / 2 * width), width - 1)] = True
        mask |= in_rows[:, None] & in_columns[None, :]
    return mask


def hot_region(heat: Tensor) -> Tensor:
    """(H, W) bool: above the map's mean plus one standard deviation; all of a flat map.

    A map with several equal peaks of more than that can reach the bound only with its peaks.
    """
    bound = heat.mean() + heat.std(correction=0)
    return heat >= torch.minimum(bound, heat.max())


def moved_iou(region: Tensor, target: Tensor) -> float:
    """Mean IoU of `region` with `target` (both (H, W) bool) over all wrapped shifts of `region`.

    It is what a map of this shape and size reaches if it lies anywhere at random. All the
    intersections together are one circular cross-correlation.
    """
    spectrum = torch.fft.rfft2(target.double()) * torch.fft.rfft2(region.double()).conj()
    intersection = torch.fft.irfft2(spectrum, s=tuple(region.shape)).round()
    return (intersection / (region.sum() + target.sum() - intersection)).mean().item()
