"""Which of an image's things a sentence names: the ground truth of localisation."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pretrain.data.transforms import Box

#: How many words may stand between a colour and the thing it belongs to ("red striped big ball").
_WORDS_BETWEEN = 2


@dataclass(frozen=True)
class Named:
    """A sentence that names exactly one kind of thing of its image."""

    sentence: str
    name: str
    boxes: tuple[Box, ...]


def vocabulary_of(all_objects: Iterable[Sequence[dict]]) -> frozenset[str]:
    """Every name of a thing that occurs in a set, lower-case."""
    return frozenset(str(thing["name"]).lower() for things in all_objects for thing in things)


def mentions(sentence: str, vocabulary: Iterable[str]) -> list[tuple[str, int]]:
    """Names of `vocabulary` in the sentence, as (name, index of its first word), in order.

    Whole words, any case, the longest name first: "hot dog" does not mention a dog, "baseball bat"
    no baseball.
    """
    words = _words(sentence)
    names = sorted({tuple(_words(name)): name for name in vocabulary}.items(), key=_longest_first)
    found: list[tuple[str, int]] = []
    position = 0
    while position < len(words):
        for parts, name in names:
            if parts and tuple(words[position : position + len(parts)]) == parts:
                found.append((name, position))
                position += len(parts)
                break
        else:
            position += 1
    return found


def named_thing(
    sentence: str, objects: Sequence[dict], vocabulary: Iterable[str] | None = None
) -> Named | None:
    """The one thing of `objects` that the sentence names, or None if it names none or several.

    `objects` are the entries of a sample (`name`, `box` as fractions, perhaps `color`);
    `vocabulary` holds further names that may be mentioned and are not in this image. Where several
    things share the name and the sentence gives a colour that only some of them have, those are
    meant; things that cannot be told apart count as one, with the union of their boxes.
    """
    by_name: dict[str, list[dict]] = {}
    for thing in objects:
        by_name.setdefault(str(thing["name"]).lower(), []).append(thing)
    found = mentions(sentence, {*by_name, *(vocabulary or ())})
    words = _words(sentence)
    meant: set[tuple[str, str]] = set()
    previous_end = 0
    for name, position in found:
        if name in by_name:
            before = words[max(previous_end, position - _WORDS_BETWEEN - 1) : position]
            meant.add((name, _colour(by_name[name], before)))
        previous_end = position + len(_words(name))
    if len(meant) != 1:
        return None
    name, colour = meant.pop()
    things = [t for t in by_name[name] if not colour or str(t.get("color", "")).lower() == colour]
    return Named(sentence, f"{colour} {name}".strip(), tuple(_box(thing) for thing in things))


def _colour(things: Sequence[dict], words_before: Sequence[str]) -> str:
    """The colour by which the sentence picks among things of one name; empty if it picks none."""
    if len(things) == 1:
        return ""
    colours = {str(thing.get("color") or "").lower() for thing in things} - {""}
    for word in reversed(words_before):
        if word in colours:
            return word
    return ""


def _box(thing: dict) -> Box:
    left, top, right, bottom = (float(value) for value in thing["box"])
    return (left, top, right, bottom)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _longest_first(item: tuple[tuple[str, ...], str]) -> tuple[int, tuple[str, ...]]:
    return (-len(item[0]), item[0])
