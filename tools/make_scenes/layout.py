"""Which things a scene has and where: placed at random, some on others, some behind others."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tools.make_scenes.sprites import silhouette, sprite_size
from tools.make_scenes.world import BACKGROUNDS, COLORS, KINDS, LATTICE, SIZES, SUPPORTS, TEXTURES

#: How often a scene has 3, 4, ... 12 things.
NUM_THINGS_WEIGHTS = (34, 26, 15, 9, 6, 4, 2, 2, 1, 1)

#: Every thing of a scene shows at least this share of its pixels: there is nothing in a scene
#: that one could not see, so all things are described and all count.
MIN_VISIBLE = 0.35


@dataclass(frozen=True)
class Thing:
    """One thing. ``x, y`` is its upper left corner, ``step`` the lattice's step, in pixels."""

    kind: str
    color: str
    size: str
    texture: str
    part_colors: tuple[str, ...]
    step: int
    is_flipped: bool
    x: int
    y: int
    depth: float
    relation: str | None = None  # "on" or "behind" the thing with index `anchor`
    anchor: int | None = None

    @property
    def width(self) -> int:
        return sprite_size(self.kind, self.size, self.step)[0]

    @property
    def height(self) -> int:
        return sprite_size(self.kind, self.size, self.step)[1]

    @property
    def center(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y + self.height / 2


@dataclass(frozen=True)
class Layout:
    """A scene before it has words or pixels; ``things`` from the back to the front."""

    background: str
    image_size: int
    things: tuple[Thing, ...]


def draw_layout(rng: random.Random, image_size: int, max_things: int = 12) -> Layout:
    """A random layout in which every thing can be seen (see ``MIN_VISIBLE``)."""
    weights = NUM_THINGS_WEIGHTS[: max_things - 2]
    while True:
        background = rng.choice(list(BACKGROUNDS))
        (num_things,) = rng.choices(range(3, 3 + len(weights)), weights)
        things: list[Thing] = []
        for _ in range(num_things):
            thing = _draw_thing(rng, things, background, image_size, is_crowded=num_things > 7)
            if thing is not None:
                things.append(thing)
        layout = Layout(background, image_size, _sort_by_depth(things))
        if len(things) >= 3 and is_clear(layout):
            return layout


def label_map(layout: Layout) -> np.ndarray:
    """(image_size, image_size) uint8: 0 = background, i + 1 = thing i is what one sees there."""
    labels = np.zeros((layout.image_size, layout.image_size), dtype=np.uint8)
    for index, thing in enumerate(layout.things):
        mask = silhouette(thing.kind, thing.size, thing.step, thing.is_flipped)
        window = labels[thing.y : thing.y + thing.height, thing.x : thing.x + thing.width]
        window[mask] = index + 1
    return labels


def visible_shares(layout: Layout, labels: np.ndarray) -> list[float]:
    """For each thing the share of its pixels that nothing covers."""
    counts = np.bincount(labels.ravel(), minlength=len(layout.things) + 1)[1:]
    totals = [silhouette(t.kind, t.size, t.step, t.is_flipped).sum() for t in layout.things]
    return [float(count / total) for count, total in zip(counts, totals, strict=True)]


def is_clear(layout: Layout) -> bool:
    """Whether everything lies inside the image and can be seen."""
    if not all(is_inside(thing, layout.image_size) for thing in layout.things):
        return False
    return min(visible_shares(layout, label_map(layout))) >= MIN_VISIBLE


def is_inside(thing: Thing, image_size: int) -> bool:
    return (
        thing.x >= 0
        and thing.y >= 0
        and thing.x + thing.width <= image_size
        and thing.y + thing.height <= image_size
    )


def snap(position: float, step: int) -> int:
    """The nearest point of the lattice."""
    return round(position / step) * step


def overlap(a: Thing, b: Thing) -> float:
    """Intersection of the two boxes over the area of the smaller."""
    width = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
    height = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / min(a.width * a.height, b.width * b.height)


def _draw_thing(
    rng: random.Random, things: Sequence[Thing], background: str, image_size: int, is_crowded: bool
) -> Thing | None:
    """A new thing that fits beside the others, or None where no place was found."""
    colors = [color for color in COLORS if color not in BACKGROUNDS[background].avoid]
    taken = {(thing.kind, thing.color) for thing in things}
    for attempt in range(12):
        relation = rng.choices([None, "on", "behind"], [6, 5, 2])[0] if attempt < 4 else None
        weights = [5, 4, 0] if is_crowded or attempt >= 8 else [2, 5, 4]
        (size,) = rng.choices(list(SIZES), weights)
        kind = rng.choice(list(KINDS))
        color, *part_colors = rng.sample(colors, 1 + len(KINDS[kind].parts))
        if (kind, color) in taken:
            continue
        thing = Thing(
            kind=kind,
            color=color,
            size=size,
            # On a few pixels nobody can tell dots from checks.
            texture="plain" if size == "small" else rng.choice(TEXTURES),
            part_colors=tuple(part_colors),
            step=image_size // LATTICE,
            is_flipped=rng.random() < 0.5,
            x=0,
            y=0,
            depth=len(things),
        )
        placed = _place(rng, thing, things, relation, image_size)
        if placed is not None:
            return placed
    return None


def _place(
    rng: random.Random,
    thing: Thing,
    things: Sequence[Thing],
    relation: str | None,
    image_size: int,
) -> Thing | None:
    anchored = {other.anchor for other in things}
    anchors = [
        index
        for index, other in enumerate(things)
        if index not in anchored
        and other.relation is None
        and other.color != thing.color
        and (relation != "on" or (other.kind in SUPPORTS and thing.width < other.width))
        and (relation != "behind" or other.size != "small")
    ]
    if relation is not None and not anchors:
        return None
    anchor = rng.choice(anchors) if relation is not None else None
    for _ in range(8):
        placed = _propose(rng, thing, things, relation, anchor, image_size)
        if not is_inside(placed, image_size):
            continue
        free = (overlap(placed, other) for i, other in enumerate(things) if i != anchor)
        if all(share <= 0.04 for share in free):
            return placed
    return None


def _propose(
    rng: random.Random,
    thing: Thing,
    things: Sequence[Thing],
    relation: str | None,
    anchor: int | None,
    image_size: int,
) -> Thing:
    def moved(x: float, y: float, depth: float) -> Thing:
        return replace(thing, x=round(x), y=round(y), depth=depth, relation=relation, anchor=anchor)

    if anchor is None:
        return moved(
            rng.uniform(0, image_size - thing.width),
            rng.uniform(0, image_size - thing.height),
            thing.depth,
        )
    other = things[anchor]
    if relation == "on":
        x = rng.uniform(other.x, other.x + other.width - thing.width)
        return moved(x, other.y - thing.height, other.depth + 0.5)
    # Behind: a third to a half of the thing's width or height goes under the other.
    hidden = rng.uniform(0.3, 0.5)
    x = rng.uniform(other.x - 0.3 * thing.width, other.x + other.width - 0.7 * thing.width)
    y = rng.uniform(other.y - 0.3 * thing.height, other.y + other.height - 0.7 * thing.height)
    match rng.choice(("left", "right", "top")):
        case "left":
            x = other.x - (1 - hidden) * thing.width
        case "right":
            x = other.x + other.width - hidden * thing.width
        case "top":
            y = other.y - (1 - hidden) * thing.height
    return moved(x, y, other.depth - 0.5)


def _sort_by_depth(things: Sequence[Thing]) -> tuple[Thing, ...]:
    order = sorted(range(len(things)), key=lambda index: things[index].depth)
    rank: dict[int | None, int] = {index: place for place, index in enumerate(order)}
    return tuple(
        replace(things[index], depth=rank[index], anchor=rank.get(things[index].anchor))
        for index in order
    )
