"""Pictures of a report, small and self-contained: segmentations, heat maps, data URIs."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from skimage.segmentation import find_boundaries
from torch import Tensor

from pretrain.data.transforms import Box
from pretrain.evaluate.maps import normalised, peak

#: Colours of a heat map from cold to hot; the light page shows through where it is cold.
_HEAT = np.array([[38, 60, 115], [64, 142, 164], [126, 200, 145], [250, 220, 90], [228, 70, 40]])
_BOX = (255, 255, 255)


def to_image(pixels: Tensor, side: int) -> Image.Image:
    """A (3, H, W) uint8 tensor as a picture of `side` x `side` pixels."""
    array = pixels.permute(1, 2, 0).numpy()
    return Image.fromarray(array).resize((side, side), Image.Resampling.LANCZOS)


def segmentation(pixels: Tensor, labels: Tensor, side: int) -> Image.Image:
    """Every segment in its mean colour, with the boundaries between segments.

    `pixels` is (3, H, W) uint8, `labels` (H, W) int64.
    """
    index = labels.flatten().numpy()
    colours = pixels.flatten(1).numpy().astype(np.float64)
    size = np.maximum(np.bincount(index), 1)
    means = np.stack([np.bincount(index, weights=channel) / size for channel in colours], axis=1)
    enlarged = _enlarge(labels.numpy(), side)
    painted = means[enlarged]
    lines = find_boundaries(enlarged, mode="inner", connectivity=1)
    # Lines must show on a white wall as on a night sky.
    is_light = painted.mean(axis=-1) > 150
    painted[lines & is_light] *= 0.55
    painted[lines & ~is_light] = 0.45 * painted[lines & ~is_light] + 0.55 * 255
    return Image.fromarray(painted.round().astype(np.uint8))


def heat_map(pixels: Tensor, heat: Tensor, boxes: Sequence[Box], side: int) -> Image.Image:
    """A map (H, W) over its grey picture (3, H, W), its peak as a cross, the true boxes drawn.

    A map that holds NaN has no cross.
    """
    grey = np.asarray(to_image(pixels, side).convert("L"), dtype=np.float64)[..., None]
    is_broken = bool(heat.isnan().any())
    strength = _enlarge(normalised(heat.nan_to_num(0.0) if is_broken else heat).numpy(), side)
    colour = _colour(strength)
    # Light keeps the drawing readable under the map: colour times grey, more of it where hot.
    weight = 0.45 + 0.4 * strength[..., None]
    painted = (1 - weight) * grey + weight * colour * (0.45 + 0.55 * grey / 255)
    image = Image.fromarray(painted.round().clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for box in boxes:
        corners = [round(value * (side - 1)) for value in box]
        draw.rectangle(corners, outline=(20, 20, 20), width=4)
        draw.rectangle(
            [corners[0] + 1, corners[1] + 1, corners[2] - 1, corners[3] - 1], None, _BOX, 2
        )
    if is_broken:
        return image
    row, column = (round((value + 0.5) * side / heat.shape[0]) for value in peak(heat))
    for colour_of_cross, width in (((20, 20, 20), 5), (_BOX, 2)):
        draw.line((column - 7, row, column + 7, row), fill=colour_of_cross, width=width)
        draw.line((column, row - 7, column, row + 7), fill=colour_of_cross, width=width)
    return image


def data_uri(image: Image.Image, lossless: bool = False) -> str:
    """The picture itself as the address of an HTML image."""
    buffer = io.BytesIO()
    if lossless:
        image.save(buffer, "PNG", optimize=True)
    else:
        image.save(buffer, "JPEG", quality=88)
    kind = "png" if lossless else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _colour(strength: NDArray[np.float64]) -> NDArray[np.float64]:
    """(H, W) in [0, 1] to (H, W, 3) by linear steps through the colours of the heat scale."""
    stops = np.linspace(0, 1, len(_HEAT))
    return np.stack([np.interp(strength, stops, channel) for channel in _HEAT.T], axis=-1)


def _enlarge(values: NDArray, side: int) -> NDArray:
    """(H, W) to (side, side), nearest neighbour: labels and flat maps keep their edges."""
    rows = (np.arange(side) + 0.5) * values.shape[0] / side
    columns = (np.arange(side) + 0.5) * values.shape[1] / side
    return values[rows.astype(int)][:, columns.astype(int)]
