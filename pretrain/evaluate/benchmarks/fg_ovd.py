"""FG-OVD as crops and expressions: the JSON lines that FG-CLIP published, on COCO val2017."""

from pathlib import Path

from pretrain.evaluate.benchmarks.base import Box, ChoiceSet, LayoutError, Options, Picture
from pretrain.evaluate.benchmarks.layout import find_file, read_json_lines, text_field
from pretrain.evaluate.benchmarks.present import Present, typed_field

_PROTOCOL = (
    "an object's crop (its box, rounded to pixels) against 1 right and 10 wrong expressions, {}; "
    "right if it scores strictly highest"
)
VARIANTS = {
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
_FOLDERS = ("", "fgovd_json/", "annotations/")


def read(root: Path, options: Options) -> ChoiceSet:
    """`root` with the JSON lines (or in fgovd_json/ or annotations/) and val2017/.

    Raises:
        LayoutError: files are missing, or a line is not as published.
    """
    variant = options.variant or "hard"
    path = find_file(root, *(folder + name for folder in _FOLDERS for name in FILES[variant]))
    present = Present("fg-ovd", root, options)
    images, choices = [], []
    num_rows = 0
    seen: set[tuple[object, ...]] = set()
    for where, row in read_json_lines(path):
        num_rows += 1
        name = image_name(text_field(row, "img_path", where), where)
        texts = present.texts([(text, where) for text in _texts(row, where)])
        box = _box(row, where)
        if not present.has(name) or texts is None:
            continue
        if (name, box, *texts) in seen:
            present.notes["rows that were there before"] += 1
            continue
        seen.add((name, box, *texts))
        present.notes["right texts among the wrong ones"] += texts[0] in texts[1:]
        images.append(Picture(root, name, box))
        choices.append(texts)
    num_expected = num_rows - present.notes["rows that were there before"]
    coverage = present.coverage(len(images), num_expected, [path])
    return ChoiceSet(images, choices, [variant] * len(images), coverage)


def image_name(published: str, where: str) -> str:
    """A path of the published files, such as /val2017/000000000139.jpg, below the root.

    Raises:
        LayoutError: it leads out of the root.
    """
    parts = Path(published.lstrip("/")).parts
    if ".." in parts:
        raise LayoutError(f"{where}: img_path {published!r} leads out of the root")
    return "/".join(parts[parts.index("val2017") :] if "val2017" in parts else parts)


def _texts(row: dict[str, object], where: str) -> list[str]:
    """The right expression (published as a text, or as a list of one), then the wrong ones."""
    right = typed_field(row, "pos_expression", (str, list), where)
    wrong = typed_field(row, "neg_expression", list, where)
    texts = [*(right if isinstance(right, list) else [right]), *wrong]
    if len(texts) != len(wrong) + 1 or not wrong:
        raise LayoutError(f"{where}: not one pos_expression and several neg_expression")
    if not all(isinstance(text, str) for text in texts):
        raise LayoutError(f"{where}: an expression is no text")
    return texts


def _box(row: dict[str, object], where: str) -> Box:
    numbers = typed_field(row, "bbox", list, where)
    if len(numbers) != 4 or any(type(number) not in (int, float) for number in numbers):
        raise LayoutError(f"{where}: bbox is not x, y, width, height")
    x, y, width, height = numbers
    if width <= 0 or height <= 0:
        raise LayoutError(f"{where}: bbox is empty ({width} x {height})")
    return (x, y, width, height)
