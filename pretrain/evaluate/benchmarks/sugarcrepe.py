"""SugarCrepe: a caption against one that is wrong in a detail, on COCO val2017."""

from pathlib import Path

from pretrain.evaluate.benchmarks.base import ChoiceSet, LayoutError, Options, Picture
from pretrain.evaluate.benchmarks.layout import read_json_file, text_field
from pretrain.evaluate.benchmarks.present import Present, folder_with

VARIANTS = {
    "all": "whole images of COCO val2017, a right and a wrong caption; right if the right one "
    "scores strictly higher; by kind of change (7 files), and their mean"
}
KINDS = (
    "add_att",
    "add_obj",
    "replace_att",
    "replace_obj",
    "replace_rel",
    "swap_att",
    "swap_obj",
)


def read(root: Path, options: Options) -> ChoiceSet:
    """`root` (or its data/) with seven JSON files, and `root`/val2017.

    Raises:
        LayoutError: files are missing, or an entry is not as published.
    """
    folder = folder_with(root, ("", "data"), [f"{kind}.json" for kind in KINDS])
    present = Present("sugarcrepe", root, options)
    images, choices, groups = [], [], []
    num_expected = 0
    inputs = []
    for kind in KINDS:
        path = folder / f"{kind}.json"
        if not present.has(str(path.relative_to(root))):
            continue
        seen: set[tuple[str, ...]] = set()
        inputs.append(path)
        entries = read_json_file(path, dict)
        if not entries:
            present.lacks(f"the entries of {kind}.json")
        for key, entry in entries.items():
            where = f"{path} entry {key}"
            file_name = text_field(entry, "filename", where)
            if not file_name or Path(file_name).name != file_name:
                raise LayoutError(f"{where}: filename {file_name!r} is no name of a file")
            name = f"val2017/{file_name}"
            fields = [text_field(entry, n, where) for n in ("caption", "negative_caption")]
            if (name, *fields) in seen:
                present.notes["entries that were there before"] += 1
                continue
            seen.add((name, *fields))
            num_expected += 1
            texts = present.texts([(text, where) for text in fields])
            if not present.has_picture(name) or texts is None:
                continue
            present.notes["captions that are alike"] += texts[0] == texts[1]
            images.append(Picture(root, name))
            choices.append(texts)
            groups.append(kind)
    coverage = present.coverage(len(images), num_expected, inputs)
    return ChoiceSet(images, choices, groups, coverage)
