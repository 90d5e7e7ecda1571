"""FG-OVD as crops and expressions: the JSON lines that FG-CLIP published, on COCO val2017."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from pretrain.evaluate.benchmarks.base import Box, ChoiceSet, LayoutError, Options, Picture
from pretrain.evaluate.benchmarks.layout import (
    list_field,
    read_json_lines,
    text_field,
    typed_field,
)
from pretrain.evaluate.benchmarks.present import Present, folder_with

_PROTOCOL = (
    "an object's crop (its box, rounded to pixels) against 1 right and 10 wrong expressions, {}; "
    "right if it scores strictly highest; a line that stands there twice counts twice, as in "
    "FG-CLIP's script; how many lines the files have is not known here, so nothing tells that one "
    "was cut off at the end of a line"
)
VARIANTS = {
    "all": "the four below, a figure for each: " + _PROTOCOL.format("of every difficulty"),
    "hard": _PROTOCOL.format("which have 1 attribute replaced"),
    "medium": _PROTOCOL.format("which have 2 attributes replaced"),
    "easy": _PROTOCOL.format("which have 3 attributes replaced"),
    "trivial": _PROTOCOL.format("which are those of other objects"),
}
#: Files by difficulty, as FG-CLIP names them and as others renamed them.
FILES = {
    "hard": ("1_attributes_llava.jsonl", "1_attributes.jsonl", "hard.jsonl"),
    "medium": ("2_attributes_llava.jsonl", "2_attributes.jsonl", "medium.jsonl"),
    "easy": ("3_attributes_llava.jsonl", "3_attributes.jsonl", "easy.jsonl"),
    "trivial": ("shuffle_negatives_llava.jsonl", "shuffle_negatives.jsonl", "trivial.jsonl"),
}
_FOLDERS = ("", "fgovd_json", "annotations")
_NUM_WRONG = 10  # expressions of a line
_FAR = 1e6  # pixels; no picture within the limits has so long a side


def read(root: Path, options: Options) -> ChoiceSet:
    """`root` with the JSON lines (or in fgovd_json/ or annotations/) and val2017/.

    Raises:
        LayoutError: files are missing, or a line is not as published.
    """
    levels = list(FILES) if options.variant in ("", "all") else [options.variant]
    folder = folder_with(root, _FOLDERS, [name for level in levels for name in FILES[level]])
    present = Present("fg-ovd", root, options)
    rows: list[_Row] = []
    num_lines, inputs = 0, []
    is_as_published = True
    for level in levels:
        path = next((folder / name for name in FILES[level] if (folder / name).is_file()), None)
        if path is None:
            present.lacks(f"{FILES[level][0]} ({level})")
            is_as_published = False
            continue
        inputs.append(path)
        of_level = [_row(row, where, level) for where, row in read_json_lines(path)]
        if not of_level:
            present.lacks(f"the lines of {path.name}")
        num_others = sum(len(row.texts) != 1 + _NUM_WRONG for row in of_level)
        is_as_published &= bool(of_level) and not num_others
        if num_others:
            present.lacks(
                f"{_NUM_WRONG} wrong expressions in {num_others:,} of {len(of_level):,} lines of "
                f"{path.name}"
            )
        present.notes[f"lines with more or fewer than {_NUM_WRONG} wrong expressions"] += num_others
        present.notes["rows that were there before"] += len(of_level) - len(set(of_level))
        num_lines += len(of_level)
        rows += filter(None, (_whole(row, present) for row in of_level))
    present.notes["right texts among the wrong ones"] = sum(r.texts[0] in r.texts[1:] for r in rows)
    return ChoiceSet(
        images=[Picture(root, row.image, row.box) for row in rows],
        choices=[row.texts for row in rows],
        groups=[row.level for row in rows],
        # How many lines the published files have is not known: nor is the share of some of them.
        coverage=present.coverage(len(rows), num_lines if is_as_published else None, inputs),
    )


@dataclass(frozen=True)
class _Row:
    image: str
    box: Box
    texts: tuple[str, ...]  # the right one first
    level: str
    where: str = dataclasses.field(compare=False)


def _row(row: dict[str, object], where: str, level: str) -> _Row:
    name = image_name(text_field(row, "img_path", where))
    return _Row(name, _box(row, where), _texts(row, where), level, where)


def _whole(row: _Row, present: Present) -> _Row | None:
    """If its picture is there and none of its texts is empty; remembers what is not so."""
    texts = present.texts([(text, row.where) for text in row.texts])
    if not present.has_picture(row.image, row.where) or texts is None:
        return None
    return dataclasses.replace(row, texts=tuple(texts))


def image_name(published: str) -> str:
    """A path of the published files, such as /val2017/000000000139.jpg, below the root."""
    parts = Path(published.lstrip("/")).parts
    return "/".join(parts[parts.index("val2017") :] if "val2017" in parts else parts)


def _texts(row: dict[str, object], where: str) -> tuple[str, ...]:
    """The right expression (published as a text, or as a list of one), then the wrong ones."""
    right = typed_field(row, "pos_expression", (str, list), where)
    wrong = list_field(row, "neg_expression", where)
    texts = (*(right if isinstance(right, list) else [right]), *wrong)
    if len(texts) != len(wrong) + 1 or not wrong:
        raise LayoutError(f"{where}: not one pos_expression and several neg_expression")
    if not all(isinstance(text, str) for text in texts):
        raise LayoutError(f"{where}: an expression is no text")
    return tuple(text.strip() for text in texts)


def _is_number(value: object) -> bool:
    """Whether it can be a place in a picture; neither NaN nor infinity is."""
    return type(value) in (int, float) and -_FAR < value < _FAR  # type: ignore[operator]


def _box(row: dict[str, object], where: str) -> Box:
    numbers = list_field(row, "bbox", where)
    if len(numbers) != 4 or not all(map(_is_number, numbers)):
        raise LayoutError(f"{where}: bbox is not x, y, width, height")
    x, y, width, height = numbers
    if width <= 0 or height <= 0:
        raise LayoutError(f"{where}: bbox is empty ({width} x {height})")
    return (x, y, width, height)
