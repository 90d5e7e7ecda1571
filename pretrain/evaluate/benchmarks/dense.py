"""Benchmarks that ask where: pictures with masks of things, or with a class for each pixel."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_masks

from pretrain.evaluate.benchmarks.base import Coverage, LayoutError, Picture, unreadable
from recaption.common.config import UserError
from recaption.images import ImageConfig


@dataclass(frozen=True)
class Region:
    """A thing's mask as COCO writes it: polygons, or run lengths."""

    where: str  # file and annotation, for errors
    segmentation: Any  # [[x, y, x, y, ...], ...] or {"counts": ..., "size": [height, width]}
    height: int
    width: int

    def mask(self) -> np.ndarray:
        """(height, width) bool; several polygons together.

        Raises:
            LayoutError: as `runs`.
        """
        decoded: np.ndarray = coco_masks.decode(self.runs())
        return decoded.astype(bool)

    def runs(self) -> dict[str, Any]:
        """The mask as run lengths, which takes little.

        Raises:
            LayoutError: it is no mask of this size, or one without a pixel.
        """
        try:
            if isinstance(self.segmentation, dict):
                runs = self._runs_as_written(self.segmentation)
            else:
                runs = self._runs_of_polygons(self.segmentation)
            has_pixels = coco_masks.area(runs) > 0
        except Exception as error:  # the library raises nearly anything, bare exceptions included
            raise LayoutError(f"{self.where}: its segmentation is none ({error})") from None
        if not has_pixels:
            raise LayoutError(f"{self.where}: its segmentation has no pixel")
        return runs

    # The library is written in C and trusts what it is given: a far coordinate ends the process.

    def _runs_as_written(self, segmentation: dict[str, Any]) -> dict[str, Any]:
        height, width = segmentation["size"]
        if (height, width) != (self.height, self.width):
            raise ValueError(
                f"it is of {width} x {height} pixels, its picture of {self.width} x {self.height}"
            )
        counts = segmentation["counts"]
        if not isinstance(counts, list):
            coco_masks.decode(segmentation)  # finds runs that lead beyond the end
            return segmentation
        if not all(type(count) is int and count >= 0 for count in counts):
            raise ValueError("a run is no number of pixels")
        if sum(counts) != height * width:
            raise ValueError(f"its runs are of {sum(counts)} pixels, not of {height * width}")
        runs: dict[str, Any] = coco_masks.frPyObjects(segmentation, height, width)
        return runs

    def _runs_of_polygons(self, polygons: Any) -> dict[str, Any]:
        if not isinstance(polygons, list) or not polygons:
            raise ValueError("neither polygons nor run lengths")
        for polygon in polygons:
            if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
                raise ValueError("a polygon is no list of three or more x, y")
            for values, side in ((polygon[::2], self.width), (polygon[1::2], self.height)):
                # A little outside does no harm: what is outside is not painted.
                if not all(type(v) in (int, float) and -side <= v <= 2 * side for v in values):
                    raise ValueError("a polygon leads out of its picture")
        together = coco_masks.frPyObjects(polygons, self.height, self.width)
        runs: dict[str, Any] = coco_masks.merge(together)
        return runs


@dataclass(frozen=True)
class GroundingSet:
    """Sentences that each name one thing of a picture."""

    images: Sequence[Picture]
    sentences: Sequence[Sequence[str]]  # of each image
    regions: Sequence[Sequence[Region]]  # what each of them names
    coverage: Coverage


@dataclass(frozen=True)
class LabelMap:
    """A picture whose values are classes: 1 is the first class; 0 and 255 do not count."""

    path: Path

    def read(self, num_classes: int) -> np.ndarray:
        """(H, W) int64: position of the class of each pixel, -1 where none counts.

        Raises:
            UserError: it is no PNG with one value a pixel, or a value is no class.
        """
        try:
            with Image.open(self.path, formats=["PNG"]) as image:
                if image.width * image.height > ImageConfig().max_pixels:
                    raise UserError(f"{self.path} has too many pixels: {image.size}")
                if image.mode not in ("L", "P"):
                    raise UserError(
                        f"{self.path} is a {image.mode} picture: labels are one value a pixel "
                        "(a palette or grey), as in the official archive"
                    )
                values = np.array(image).astype(np.int64)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise unreadable(self.path, error) from None
        beyond = values[(values > num_classes) & (values != 255)]
        if beyond.size:
            raise UserError(f"{self.path} has the label {beyond[0]}, of {num_classes} classes")
        values[values == 255] = 0
        return values - 1


@dataclass(frozen=True)
class SegmentationSet:
    images: Sequence[Picture]
    labels: Sequence[LabelMap]  # of each image
    classes: Sequence[str]
    templates: Sequence[str]  # prompts with {} for the class
    coverage: Coverage
