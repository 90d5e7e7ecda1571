"""What a model sees in one picture, to look at: its segments, and where sentences look."""

from collections.abc import Sequence

from torch import Tensor

from pretrain.data.transforms import Box
from pretrain.evaluate.pictures import data_uri, heat_map, segmentation, to_image
from pretrain.models.features import SegmentHierarchy

SIDE = 256  # pixels of a picture in the file; shown smaller


def picture_uri(pixels: Tensor) -> str:
    """(3, H, W) uint8 as the address of an HTML image."""
    return data_uri(to_image(pixels, SIDE))


def level_panels(pixels: Tensor, hierarchy: SegmentHierarchy | None) -> list[dict[str, str]]:
    """The picture (3, H, W) uint8, and its segments at every level, from fine to coarse.

    Nothing for a model without poolings. `hierarchy` is of this picture alone.
    """
    if hierarchy is None or not hierarchy.num_segments:
        return []
    panels = [{"title": "image", "image": picture_uri(pixels)}]
    for level, num_segments in enumerate(hierarchy.num_segments):
        picture = segmentation(pixels, hierarchy.segments(level)[0].cpu(), SIDE)
        panels.append(
            {"title": f"{num_segments} segments", "image": data_uri(picture, lossless=True)}
        )
    return panels


def map_uri(pixels: Tensor, heat: Tensor, boxes: Sequence[Box] = ()) -> str:
    """A sentence's map (H, W) over its picture (3, H, W) uint8, with true boxes (fractions)."""
    return data_uri(heat_map(pixels, heat, boxes, SIDE))
