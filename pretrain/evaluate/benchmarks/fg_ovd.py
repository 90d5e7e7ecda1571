"""FG-OVD as crops and expressions: the JSON lines that FG-CLIP published, on COCO val2017."""

from pathlib import Path

from pretrain.evaluate.benchmarks.base import Box, ChoiceSet, LayoutError, Options, Picture
from pretrain.evaluate.benchmarks.layout import (
    Present,
    choose_variant,
    field,
    need,
    read_json_lines,
    text_field,
)

PROTOCOL = (
    "FG-OVD (Bianchi et al. 2024): an object's crop (its box, rounded to pixels) against 1 right "
    "and 10 wrong expressions; right if it scores strictly highest. Variants hard (default), "
    "medium, easy: 1, 2, 3 attributes replaced; trivial: expressions of other objects."
)
#: Files by difficulty, as FG-CLIP names them and as others renamed them.
FILES = {
    "hard": ("1_attributes_llava.jsonl", "1_attributes.jsonl", "hard.jsonl"),
    "medium": ("2_attributes_llava.jsonl", "2_attributes.jsonl", "medium.jsonl"),
    "easy": ("3_attributes_llava.jsonl", "3_attributes.jsonl", "easy.jsonl"),
    "trivial": ("shuffle_negatives_llava.jsonl", "shuffle_negatives.jsonl", "trivial.jsonl"),
}
_FOLDERS = ("", "fgovd_json/", "annotations/")


def read_fg_ovd(root: Path, options: Options) -> ChoiceSet:
    """`root` with the JSON lines (or in fgovd_json/ or annotations/) and val2017/.

    Raises:
        LayoutError: files are missing, or a line is not as published.
    """
    variant = choose_variant(options, tuple(FILES))
    path = need(root, *(folder + name for folder in _FOLDERS for name in FILES[variant]))
    present = Present(root, options)
    images, choices = [], []
    num_rows = num_repeated = num_ambiguous = 0
    seen: set[tuple[object, ...]] = set()
    for where, row in read_json_lines(path):
        num_rows += 1
        name = image_name(text_field(row, "img_path", where))
        texts = [_right_text(row, where), *_wrong_texts(row, where)]
        box = _box(row, where)
        if not present.has(name):
            continue
        num_repeated += (name, box, *texts) in seen
        seen.add((name, box, *texts))
        num_ambiguous += texts[0] in texts[1:]
        images.append(Picture(root, name, box))
        choices.append(texts)
    notes = {"rows_repeated": num_repeated, "right_text_among_wrong_ones": num_ambiguous}
    coverage = present.coverage(len(images), num_rows, notes)
    return ChoiceSet(images, choices, [variant] * len(images), coverage)


def image_name(published: str) -> str:
    """A path of the published files, such as /val2017/000000000139.jpg, below the root.

    Raises:
        LayoutError: it leads out of the root.
    """
    parts = Path(published.lstrip("/")).parts
    if ".." in parts:
        raise LayoutError(f"img_path {published!r} leads out of the root")
    return "/".join(parts[parts.index("val2017") :] if "val2017" in parts else parts)


def _right_text(row: dict[str, object], where: str) -> str:
    """A text, or a list of one."""
    texts = field(row, "pos_expression", (str, list), where)
    if isinstance(texts, list) and len(texts) != 1:
        raise LayoutError(f"{where}: pos_expression has {len(texts)} texts, not 1")
    text = texts[0] if isinstance(texts, list) else texts
    return text_field({"pos_expression": text}, "pos_expression", where)


def _wrong_texts(row: dict[str, object], where: str) -> list[str]:
    texts = field(row, "neg_expression", list, where)
    if not texts:
        raise LayoutError(f"{where}: neg_expression is empty")
    return [text_field({"neg_expression": text}, "neg_expression", where) for text in texts]


def _box(row: dict[str, object], where: str) -> Box:
    numbers = field(row, "bbox", list, where)
    if len(numbers) != 4 or any(type(number) not in (int, float) for number in numbers):
        raise LayoutError(f"{where}: bbox is not x, y, width, height")
    x, y, width, height = numbers
    if width <= 0 or height <= 0:
        raise LayoutError(f"{where}: bbox is empty ({width} x {height})")
    return (x, y, width, height)
