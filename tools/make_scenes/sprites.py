"""Drawings of single things as maps of roles, cached: a scene is then lookups and pastes."""

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from tools.make_scenes.world import KINDS, MAIN, NOTHING, SECOND_SHADE, SIZES, TEXTURES

#: Pixels drawn a side for each pixel of the image; also where a mask's pixel is sampled.
SUPERSAMPLING = 2


@lru_cache(maxsize=4096)
def role_map(kind: str, size: str, step: int, is_flipped: bool) -> np.ndarray:
    """Roles of the pixels of a thing; ``step`` is the lattice's, in pixels.

    Returns:
        (2 * height, 2 * width) uint8, supersampled; read-only.
    """
    width, height = sprite_size(kind, size, step)
    width, height = width * SUPERSAMPLING, height * SUPERSAMPLING
    canvas = Image.new("L", (width, height), NOTHING)
    draw = ImageDraw.Draw(canvas)
    for role, shape, coordinates in KINDS[kind].shapes:
        # Pillow's corners are inclusive, hence the - 1.
        points = [
            round(value * ((height if i % 2 else width) - 1)) for i, value in enumerate(coordinates)
        ]
        match shape:
            case "rect":
                draw.rectangle(points, fill=role)
            case "ellipse":
                draw.ellipse(points, fill=role)
            case "poly":
                draw.polygon(points, fill=role)
            case "pie":
                draw.pieslice(points, 180, 360, fill=role)
            case "ring":
                draw.ellipse(points, outline=role, width=max(2, round(0.11 * height)))
            case _:
                raise AssertionError(f"{kind}: no such shape: {shape}")
    roles = np.asarray(canvas)
    roles = np.ascontiguousarray(roles[:, ::-1] if is_flipped else roles)
    roles.setflags(write=False)
    return roles


@lru_cache(maxsize=4096)
def sprite_size(kind: str, size: str, step: int) -> tuple[int, int]:
    """Width and height of a thing in pixels of the image, multiples of ``step``."""
    aspect, side = KINDS[kind].aspect, SIZES[size]
    if aspect >= 1:
        return side * step, max(2, round(side / aspect)) * step
    return max(2, round(side * aspect)) * step, side * step


@lru_cache(maxsize=4096)
def silhouette(kind: str, size: str, step: int, is_flipped: bool) -> np.ndarray:
    """(height, width) bool: the image's pixels that belong to the thing; read-only."""
    roles = role_map(kind, size, step, is_flipped)
    mask = roles[1::SUPERSAMPLING, 1::SUPERSAMPLING] != NOTHING
    mask.setflags(write=False)
    return mask


@lru_cache(maxsize=4096)
def textured_roles(kind: str, size: str, step: int, is_flipped: bool, texture: str) -> np.ndarray:
    """``role_map`` where the second colour of a texture is role ``SECOND_SHADE``; read-only."""
    roles = role_map(kind, size, step, is_flipped)
    if texture == "plain":
        return roles
    assert texture in TEXTURES
    y, x = np.mgrid[: roles.shape[0], : roles.shape[1]]
    if texture == "striped":
        period = max(4, round(1.15 * step))
        pattern = (y % period) >= period // 2
    elif texture == "checked":
        cell = max(2, round(0.9 * step))
        pattern = (x // cell + y // cell) % 2 == 1
    else:
        period = max(4, round(1.3 * step))
        radius = 0.28 * period
        centre = period / 2 - 0.5
        pattern = (x % period - centre) ** 2 + (y % period - centre) ** 2 <= radius**2
    textured = np.where((roles == MAIN) & pattern, np.uint8(SECOND_SHADE), roles)
    textured.setflags(write=False)
    return textured
