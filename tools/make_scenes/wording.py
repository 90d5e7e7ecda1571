"""The words of a scene: the reference description, and alt text as the web has it.

A description opens with the background and then names every thing from left to right, so that
the order of the sentences follows from the picture.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from tools.make_scenes.layout import Layout, Thing
from tools.make_scenes.world import BACKGROUNDS, KINDS, PLURAL_PARTS

OPENINGS = ("The scene shows {}.", "This is {}.", "The picture shows {}.")
COLUMNS = ("left", "", "right")
ROWS = ("top", "", "bottom")


@dataclass(frozen=True)
class Relation:
    """``subject`` and ``object`` are indices of things, ``name`` is on, behind, above, ..."""

    subject: int
    name: str
    object: int


def left_to_right(layout: Layout) -> list[int]:
    """Indices of the things, ordered by their centres."""
    return sorted(range(len(layout.things)), key=lambda i: (layout.things[i].center, i))


def describe(layout: Layout, rng: random.Random) -> tuple[list[str], list[Relation]]:
    """The sentences of the reference description and the relations they speak of."""
    things = layout.things
    phrase = rng.choice(BACKGROUNDS[layout.background].phrases)
    sentences = [rng.choice(OPENINGS).format(phrase)]
    relations = []
    order = left_to_right(layout)
    for slot, index in enumerate(order):
        # The same number of draws for every thing, so that the two scenes of a hard pair, which
        # differ in one swap only, get the same words.
        use_relation, relation_choice, template = rng.random(), rng.random(), rng.random()
        relation = _fixed_relation(things, index)
        if relation is None and slot > 0 and use_relation < 0.45:
            candidates = _relations(layout, order, slot)
            if candidates:
                relation = candidates[int(relation_choice * len(candidates))]
        if relation is None:
            place = _place(things[index], layout.image_size)
        else:
            relations.append(relation)
            other = things[relation.object]
            place = f"{relation.name} the {other.color} {other.kind}"
        thing = name_with_attributes(things[index], has_parts=len(things) <= 8)
        if template < 0.5:
            sentence = f"{_article(thing)} is {place}."
        elif template < 0.75:
            sentence = f"there is {_article(thing)} {place}."
        else:
            sentence = f"{place} is {_article(thing)}."
        sentences.append(sentence[0].upper() + sentence[1:])
    return sentences, relations


def name_with_attributes(thing: Thing, has_parts: bool) -> str:
    """For example ``large striped red house with a blue roof and a white door``."""
    words = [thing.color, thing.kind]
    if thing.texture != "plain":
        words.insert(0, thing.texture)
    if thing.size != "medium":
        words.insert(0, thing.size)
    text = " ".join(words)
    num_parts = {"small": 0, "medium": 1, "large": 2}[thing.size] if has_parts else 0
    parts = [
        f"{color} {part}" if part in PLURAL_PARTS else _article(f"{color} {part}")
        for part, color in zip(KINDS[thing.kind].parts[:num_parts], thing.part_colors, strict=False)
    ]
    return f"{text} with {' and '.join(parts)}" if parts else text


def write_alt_text(layout: Layout, rng: random.Random) -> str:
    """Short and vague: it names one thing at most, and often nothing that is in the picture."""
    thing = rng.choice(layout.things)
    other = rng.choice(layout.things)
    number = rng.randint(1, 9999)
    return rng.choice(
        (
            "vector art 4k",
            "nice scene",
            "untitled",
            "colorful picture",
            "children's drawing wallpaper",
            f"IMG_{number:04d}.jpg",
            f"IMG_{number:04d}.jpg - {thing.color} {thing.kind}",
            f"{thing.kind} clipart free download",
            f"my drawing of a {thing.kind}",
            f"{thing.color} {thing.kind}",
            f"{thing.kind} and {other.kind}",
            f"stock illustration {number}: {thing.color} {thing.kind} and more",
            f"{layout.background} background with {thing.kind}",
            f"cute {thing.kind} picture no. {number}",
        )
    )


def _article(text: str) -> str:
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"


def _place(thing: Thing, image_size: int) -> str:
    x, y = (value / image_size for value in thing.center)
    column, row = COLUMNS[_third(x)], ROWS[_third(y)]
    if not column and not row:
        return "in the middle"
    return f"at the {row} {column}".strip() if row else f"on the {column}"


def _third(value: float) -> int:
    return 0 if value < 0.36 else 2 if value > 0.64 else 1


def _fixed_relation(things: Sequence[Thing], index: int) -> Relation | None:
    thing = things[index]
    if thing.relation is None or thing.anchor is None:
        return None
    return Relation(index, thing.relation, thing.anchor)


def _relations(layout: Layout, order: Sequence[int], slot: int) -> list[Relation]:
    """What can be said truly of where a thing is, seen from another."""
    index = order[slot]
    x, y = layout.things[index].center
    near, far = 0.12 * layout.image_size, 0.22 * layout.image_size
    relations = []
    for other in range(len(layout.things)):
        other_x, other_y = layout.things[other].center
        if abs(x - other_x) < near and abs(y - other_y) > far:
            relations.append(Relation(index, "above" if y < other_y else "below", other))
    for side, name in ((-1, "to the right of"), (1, "to the left of")):
        if 0 <= slot + side < len(order):
            other = order[slot + side]
            other_x, other_y = layout.things[other].center
            if abs(x - other_x) > far and abs(y - other_y) < far:
                relations.append(Relation(index, name, other))
    return relations
