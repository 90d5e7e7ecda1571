"""A pool of scenes in memory: pictures, captions and, for the tower's lessons, what is where.

Drawing a scene costs about as much as a training step spends on it, so scenes are drawn once, by
several processes, and serve both stages of the training.
"""

from dataclasses import dataclass, fields
from multiprocessing import get_context
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tools.make_scenes import Scene, make_scene
from tools.make_scenes.layout import Thing
from tools.make_scenes.sprites import SUPERSAMPLING, role_map
from tools.make_scenes.wording import left_to_right
from tools.make_scenes.world import COLORS, KINDS, NOTHING, SIZES, TEXTURES

#: Class 0 of every attribute means "no thing here".
KIND_IDS = {name: index + 1 for index, name in enumerate(KINDS)}
COLOR_IDS = {name: index + 1 for index, name in enumerate(COLORS)}
SIZE_IDS = {name: index + 1 for index, name in enumerate(SIZES)}
TEXTURE_IDS = {name: index + 1 for index, name in enumerate(TEXTURES)}

#: Attributes of a thing that the tower learns to tell, with their numbers of classes.
ATTRIBUTES = {
    "kind": len(KIND_IDS) + 1,
    "color": len(COLOR_IDS) + 1,
    "size": len(SIZE_IDS) + 1,
    "texture": len(TEXTURE_IDS) + 1,
    "first_part": len(COLOR_IDS) + 1,
    "second_part": len(COLOR_IDS) + 1,
    "order": 13,
}


@dataclass
class ScenePool:
    """N scenes. G is the number of patches a side, 2G that of their quarters.

    Attributes:
        images: (N, H, H, 3) uint8.
        cells: (N, 2G, 2G, 2) uint8, kind and colour of what is seen at each quarter's centre.
        centers: (N, G, G, len(ATTRIBUTES)) uint8, the attributes of the thing whose visible
            middle lies in the patch.
        roles: (N, H / 2, H / 2) uint8, the role (``world.MAIN``, ...) of every other pixel.
        captions: N reference descriptions.
    """

    images: np.ndarray
    cells: np.ndarray
    centers: np.ndarray
    roles: np.ndarray
    captions: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def save(self, file: BinaryIO) -> None:
        np.savez(file, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path) -> "ScenePool":
        with np.load(path, allow_pickle=False) as arrays:
            return cls(**{field.name: arrays[field.name] for field in fields(cls)})


def draw_pool(
    num_scenes: int, seed: int, split: str, image_size: int, patch_size: int, num_workers: int
) -> ScenePool:
    """Draws scenes ``0 .. num_scenes`` of a split, the same for any number of workers."""
    step = 500
    jobs = [
        (seed, split, start, min(start + step, num_scenes), image_size, patch_size)
        for start in range(0, num_scenes, step)
    ]
    if num_workers <= 1:
        pools = [_draw_range(*job) for job in jobs]
    else:
        with get_context("fork").Pool(num_workers) as workers:
            pools = workers.starmap(_draw_range, jobs, chunksize=1)
    return ScenePool(
        *(np.concatenate([getattr(p, field.name) for p in pools]) for field in fields(ScenePool))
    )


def _draw_range(
    seed: int, split: str, start: int, end: int, image_size: int, patch_size: int
) -> ScenePool:
    scenes = [make_scene(seed, split, index, image_size) for index in range(start, end)]
    lessons = [_lessons(scene, patch_size) for scene in scenes]
    return ScenePool(
        images=np.stack([np.asarray(scene.image()) for scene in scenes]),
        cells=np.stack([cells for cells, _ in lessons]),
        centers=np.stack([centers for _, centers in lessons]),
        roles=np.stack([_roles(scene) for scene in scenes]),
        captions=np.array([scene.caption for scene in scenes]),
    )


def _lessons(scene: Scene, patch_size: int) -> tuple[np.ndarray, np.ndarray]:
    things = scene.layout.things
    grid = scene.layout.image_size // patch_size
    classes = np.zeros((len(things) + 1, 2), dtype=np.uint8)
    classes[1:] = [(KIND_IDS[thing.kind], COLOR_IDS[thing.color]) for thing in things]
    middles = (np.arange(2 * grid) + 0.5) * patch_size / 2
    middles = middles.astype(int)
    cells = classes[scene.labels[np.ix_(middles, middles)]]
    centers = np.zeros((grid, grid, len(ATTRIBUTES)), dtype=np.uint8)
    for rank, index in enumerate(left_to_right(scene.layout)):
        ys, xs = np.nonzero(scene.labels == index + 1)
        y, x = int(ys.mean()) // patch_size, int(xs.mean()) // patch_size
        centers[y, x] = _attributes(things[index], rank)
    return cells, centers


def _roles(scene: Scene) -> np.ndarray:
    size = scene.layout.image_size
    roles = np.zeros((size, size), dtype=np.uint8)
    for thing in scene.layout.things:
        sprite = role_map(thing.kind, thing.size, thing.step, thing.is_flipped)
        sprite = sprite[1::SUPERSAMPLING, 1::SUPERSAMPLING]
        window = roles[thing.y : thing.y + thing.height, thing.x : thing.x + thing.width]
        np.copyto(window, sprite, where=sprite != NOTHING)
    return roles[1::2, 1::2]


def _attributes(thing: Thing, rank: int) -> list[int]:
    parts = [COLOR_IDS[color] for color in thing.part_colors] + [0, 0]
    return [
        KIND_IDS[thing.kind],
        COLOR_IDS[thing.color],
        SIZE_IDS[thing.size],
        TEXTURE_IDS[thing.texture],
        *parts[:2],
        rank + 1,
    ]
