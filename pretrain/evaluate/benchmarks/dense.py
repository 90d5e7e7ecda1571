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
            LayoutError: it is no mask of this size.
        """
        try:
            if isinstance(self.segmentation, dict) and not isinstance(
                self.segmentation["counts"], list
            ):
                runs = self.segmentation
            else:
                runs = coco_masks.frPyObjects(self.segmentation, self.height, self.width)
            decoded = coco_masks.decode(coco_masks.merge(runs) if isinstance(runs, list) else runs)
        except Exception as error:  # the library raises nearly anything, bare exceptions included
            raise LayoutError(f"{self.where}: its segmentation is none ({error})") from None
        if decoded.shape != (self.height, self.width):
            raise LayoutError(
                f"{self.where}: its segmentation is of {decoded.shape[1]} x {decoded.shape[0]} "
                f"pixels, its picture of {self.width} x {self.height}"
            )
        return decoded.astype(bool)


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
        except (OSError, SyntaxError, ValueError) as error:
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
