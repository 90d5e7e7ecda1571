"""One scene: its layout, its words and its pixels, all from a seed, a split and an index."""

import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
from PIL import Image

from tools.make_scenes.layout import (
    Layout,
    Thing,
    draw_layout,
    is_clear,
    label_map,
    snap,
    visible_shares,
)
from tools.make_scenes.render import render
from tools.make_scenes.wording import Relation, describe, left_to_right, write_alt_text
from tools.make_scenes.world import KINDS


@dataclass(frozen=True)
class Scene:
    """A scene and everything that is true of it.

    ``hard_pair`` is None, or the number that this scene shares with its twin (indices 2i and
    2i + 1), whose description has the same words in another order; ``swap`` says what differs.
    """

    layout: Layout
    sentences: list[str]
    relations: list[Relation]
    alt_text: str
    pixel_seed: str
    hard_pair: int | None = None
    swap: str | None = None

    @property
    def caption(self) -> str:
        return " ".join(self.sentences)

    @cached_property
    def labels(self) -> np.ndarray:
        """(image_size, image_size) uint8: 0 = background, i + 1 = object i."""
        return label_map(self.layout)

    def image(self) -> Image.Image:
        return render(self.layout, random.Random(self.pixel_seed))

    def as_json(self) -> dict[str, Any]:
        """What ``KEY.json`` holds."""
        ranks = {index: rank for rank, index in enumerate(left_to_right(self.layout))}
        shares = visible_shares(self.layout, self.labels)
        objects = [
            {
                "name": thing.kind,
                "color": thing.color,
                "size": thing.size,
                "texture": thing.texture,
                "box": box_of(self.labels == index + 1),
                "depth": index,
                "order": ranks[index],
                "visible": round(shares[index], 4),
                "parts": [
                    {"name": part, "color": color}
                    for part, color in zip(KINDS[thing.kind].parts, thing.part_colors, strict=True)
                ],
            }
            for index, thing in enumerate(self.layout.things)
        ]
        return {
            "sentences": self.sentences,
            "objects": objects,
            "relations": [vars(relation) for relation in self.relations],
            "background": self.layout.background,
            "hard_pair": self.hard_pair,
            "swap": self.swap,
        }


def make_scene(
    seed: int,
    split: str,
    index: int,
    image_size: int = 112,
    hard_pair_share: float = 0.25,
    max_things: int = 12,
) -> Scene:
    """The scene number ``index`` of a split: the same for the same arguments, always."""
    pair = index // 2
    is_hard = random.Random(f"{seed}/{split}/{pair}/is_hard").random() < hard_pair_share
    if not is_hard:
        name = f"{seed}/{split}/{index}"
        layout = draw_layout(random.Random(f"{name}/layout"), image_size, max_things)
        return _with_words(layout, name, name)
    name = f"{seed}/{split}/pair-{pair}"
    rng = random.Random(f"{name}/layout")
    while True:
        layout = draw_layout(rng, image_size, max_things)
        swaps = list(_swaps(layout))
        rng.shuffle(swaps)
        scene = _with_words(layout, name, f"{seed}/{split}/{2 * pair}")
        for swap, twin_layout in swaps:
            twin = _with_words(twin_layout, name, f"{seed}/{split}/{2 * pair + 1}")
            if is_hard_pair(scene.caption, twin.caption):
                chosen = twin if index % 2 else scene
                return replace(chosen, hard_pair=pair, swap=swap)


def bag_of_words(text: str) -> Counter[str]:
    return Counter(re.findall(r"[a-z]+", text.lower()))


def is_hard_pair(first: str, second: str) -> bool:
    """Whether two captions differ although their bags of words do not."""
    return first != second and bag_of_words(first) == bag_of_words(second)


def box_of(mask: np.ndarray) -> list[float]:
    """The smallest box round a mask, as fractions of the image: x0, y0, x1, y1."""
    height, width = mask.shape
    xs, ys = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    return [
        round(float(value), 5)
        for value in (xs[0] / width, ys[0] / height, (xs[-1] + 1) / width, (ys[-1] + 1) / height)
    ]


def _with_words(layout: Layout, words_name: str, name: str) -> Scene:
    sentences, relations = describe(layout, random.Random(f"{words_name}/words"))
    alt_text = write_alt_text(layout, random.Random(f"{name}/alt"))
    return Scene(layout, sentences, relations, alt_text, pixel_seed=f"{name}/pixels")


def _swaps(layout: Layout) -> Iterator[tuple[str, Layout]]:
    """Layouts that differ from this one in one swap and are as clear."""
    things = layout.things
    anchors = {thing.anchor for thing in things}
    for i, j in combinations(range(len(things)), 2):
        a, b = things[i], things[j]
        if a.kind != b.kind and a.color != b.color:
            if a.color not in b.part_colors and b.color not in a.part_colors:
                yield from _if_valid(
                    layout,
                    "colors",
                    {i: replace(a, color=b.color), j: replace(b, color=a.color)},
                )
            is_free = a.relation is None and b.relation is None and not anchors & {i, j}
            if is_free and a.size == b.size:
                moved = {i: _centered(a, b.center), j: _centered(b, a.center)}
                yield from _if_valid(layout, "places", moved)
    for i, thing in enumerate(things):
        if thing.part_colors and thing.size != "small":
            color, *rest = thing.part_colors
            swapped = replace(thing, color=color, part_colors=(thing.color, *rest))
            yield from _if_valid(layout, "parts", {i: swapped})


def _centered(thing: Thing, center: tuple[float, float]) -> Thing:
    return replace(
        thing,
        x=snap(center[0] - thing.width / 2, thing.step),
        y=snap(center[1] - thing.height / 2, thing.step),
    )


def _if_valid(layout: Layout, swap: str, changes: dict[int, Thing]) -> Iterator[tuple[str, Layout]]:
    things = tuple(changes.get(index, thing) for index, thing in enumerate(layout.things))
    is_unique = len({(thing.kind, thing.color) for thing in things}) == len(things)
    changed = replace(layout, things=things)
    if is_unique and is_clear(changed):
        yield swap, changed
