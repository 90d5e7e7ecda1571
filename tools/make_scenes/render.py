"""Pixels of a layout."""

import random

import numpy as np
from PIL import Image

from tools.make_scenes.layout import Layout, Thing
from tools.make_scenes.sprites import SUPERSAMPLING, textured_roles
from tools.make_scenes.world import BACKGROUNDS, COLORS, DETAIL, MAIN, SECOND_SHADE, SHADES


def render(layout: Layout, rng: random.Random) -> Image.Image:
    """The picture, RGB, drawn supersampled; ``rng`` varies the colours a little."""
    canvas = _background(layout, rng)
    for thing in layout.things:
        roles = textured_roles(thing.kind, thing.size, thing.step, thing.is_flipped, thing.texture)
        sprite = _palette(thing, rng)[roles]
        y, x = thing.y * SUPERSAMPLING, thing.x * SUPERSAMPLING
        window = canvas[y : y + roles.shape[0], x : x + roles.shape[1]]
        np.copyto(window, sprite, where=(roles != 0)[..., None])
    return Image.fromarray(canvas).reduce(SUPERSAMPLING)


def _palette(thing: Thing, rng: random.Random) -> np.ndarray:
    """(6, 3) uint8: the colour of each role."""
    palette = np.zeros((6, 3), dtype=np.int16)
    palette[MAIN] = COLORS[thing.color]
    palette[SECOND_SHADE] = SHADES[thing.color]
    palette[DETAIL] = (60, 60, 66)
    for part, color in enumerate(thing.part_colors):
        palette[MAIN + 1 + part] = COLORS[color]
    palette[MAIN:] += np.array([rng.randint(-10, 10) for _ in range(3)], dtype=np.int16)
    return np.clip(palette, 0, 255).astype(np.uint8)


def _background(layout: Layout, rng: random.Random) -> np.ndarray:
    """(2 * image_size, 2 * image_size, 3) uint8."""
    background = BACKGROUNDS[layout.background]
    size = layout.image_size * SUPERSAMPLING
    shift = np.array([rng.randint(-8, 8) for _ in range(3)])
    canvas = np.empty((size, size, 3), dtype=np.uint8)
    canvas[:] = np.clip(np.array(background.upper) + shift, 0, 255)
    horizon = round((background.horizon + rng.uniform(-0.06, 0.06)) * size)
    canvas[horizon:] = np.clip(np.array(background.lower) + shift, 0, 255)
    darker = np.clip(np.array(background.lower) + shift - 18, 0, 255)
    step = round(16 * size / 224)
    match background.pattern:
        case "grass":
            canvas[horizon + step :: step, ::3] = darker
        case "waves":
            canvas[horizon + step :: step] = darker
        case "boards":
            canvas[horizon:, ::step] = darker
        case "squares":
            canvas[::step] = darker
            canvas[:, ::step] = darker
        case "stars":
            for _ in range(24):
                x, y = rng.randrange(size - 2), rng.randrange(round(0.6 * size))
                canvas[y : y + 2, x : x + 2] = (222, 222, 200)
    return canvas
