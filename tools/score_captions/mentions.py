"""Which things a caption names, and in which colour: a small grammar of noun phrases.

A mention is a colour word inside the noun phrase of a thing ("a large striped red house") or said
of it ("the house, which is red", "a house is red"). Other words between colour and thing, their
order, plurals and common synonyms are tolerated; a thing without a colour is no mention.
"""

import re

from tools.make_scenes.world import COLORS, KINDS, SIZES, TEXTURES

Pair = tuple[str, str]

KIND_SYNONYMS = {
    "automobile": "car",
    "lorry": "truck",
    "sailboat": "boat",
    "ship": "boat",
    "home": "house",
    "cottage": "house",
    "mug": "cup",
    "present": "box",
    "gift": "box",
    "parasol": "umbrella",
    "sphere": "ball",
    "lampshade": "lamp",
    "blossom": "flower",
    "desk": "table",
    "boxes": "box",
}
COLOR_SYNONYMS = {
    "violet": "purple",
    "crimson": "red",
    "scarlet": "red",
    "golden": "yellow",
    "navy": "blue",
    "rose": "pink",
}
#: Words that may stand between a colour and its thing.
ADJECTIVES = frozenset(SIZES) | frozenset(TEXTURES) | {
    "big", "little", "tiny", "huge", "dark", "light", "bright", "pale", "coloured", "colored",
    "spotted", "checkered", "chequered", "gift", "toy", "polka", "dot", "and", "sports",
}  # fmt: skip
COPULAS = frozenset({"is", "are", "looks", "appears", "which", "that", "painted", "coloured"})


def colored_things(caption: str) -> set[Pair]:
    """The (thing, colour) pairs that a caption names, in the scenes' own words."""
    pairs: set[Pair] = set()
    for clause in re.split(r"[.;:!?\n]", caption.lower()):
        words = re.findall(r"[a-z]+|,", clause)
        for position in range(len(words)):
            kind = _kind_at(words, position)
            if kind is None:
                continue
            color = _color_before(words, position) or _color_after(words, position)
            if color is not None:
                pairs.add((kind, color))
    return pairs


def _kind_at(words: list[str], position: int) -> str | None:
    word = words[position]
    for candidate in (word, word.removesuffix("s"), word.removesuffix("es")):
        candidate = KIND_SYNONYMS.get(candidate, candidate)
        if candidate in KINDS:
            is_modifier = position + 1 < len(words) and words[position + 1] in KIND_SYNONYMS
            return None if is_modifier and word != "box" else candidate
    return None


def _color(word: str) -> str | None:
    word = COLOR_SYNONYMS.get(word, word)
    return word if word in COLORS else None


def _color_before(words: list[str], position: int) -> str | None:
    for word in reversed(words[:position]):
        if (color := _color(word)) is not None:
            return color
        if word not in ADJECTIVES:
            return None
    return None


def _color_after(words: list[str], position: int) -> str | None:
    """The colour said of a thing; None where the colour belongs to a noun phrase of its own."""
    following = position + 1
    if following < len(words) and words[following] == ",":
        following += 1
    start = following
    while following < len(words) and words[following] in COPULAS:
        following += 1
    if following == start:
        return None
    while following < len(words) and words[following] in ADJECTIVES:
        following += 1
    color = _color(words[following]) if following < len(words) else None
    if color is None:
        return None
    rest = words[following + 1 : following + 2]
    return color if not rest or rest[0] in {",", "and", "with", "on", "in", "at"} else None
