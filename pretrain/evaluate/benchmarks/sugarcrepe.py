"""SugarCrepe: a caption against one that is wrong in a detail, on COCO val2017."""

from pathlib import Path

from pretrain.evaluate.benchmarks.base import ChoiceSet, LayoutError, Options, Picture
from pretrain.evaluate.benchmarks.layout import read_json_file, text_field
from pretrain.evaluate.benchmarks.present import Present, folder_with

VARIANTS = {
    "all": "whole images of COCO val2017, a right and a wrong caption; right if the right one "
    "scores strictly higher; by kind of change (7 files), and their mean; entries that stand there "
    "twice count twice, as in the authors' script"
}
#: Entries by kind, as SugarCrepe++ (DATA_SIZE in its script for text encoders) and tables of
#: evaluations on GitHub tell them. Of swap_obj the authors' gpt-4v-results/readme.md counts 246, as
#: many as HuggingFaceM4's copy has: both are taken for whole.
_NUM_ENTRIES = {
    "add_att": 692,
    "add_obj": 2_062,
    "replace_att": 788,
    "replace_obj": 1_652,
    "replace_rel": 1_406,
    "swap_att": 666,
    "swap_obj": 245,
}
KINDS = tuple(_NUM_ENTRIES)


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
    for kind, num_entries in _NUM_ENTRIES.items():
        path = folder / f"{kind}.json"
        if not present.has(str(path.relative_to(root)), str(root)):
            num_expected += num_entries
            continue
        seen: set[tuple[str, ...]] = set()
        inputs.append(path)
        entries = read_json_file(path, dict)
        num_expected += max(num_entries, len(entries))
        if len(entries) < num_entries:
            num_absent = num_entries - len(entries)
            present.lacks(f"{num_absent:,} of {num_entries:,} entries of {kind}.json")
        for key, entry in entries.items():
            where = f"{path} entry {key}"
            file_name = text_field(entry, "filename", where)
            if not file_name or Path(file_name).name != file_name:
                raise LayoutError(f"{where}: filename {file_name!r} is no name of a file")
            name = f"val2017/{file_name}"
            fields = [text_field(entry, n, where) for n in ("caption", "negative_caption")]
            present.notes["entries that were there before"] += (name, *fields) in seen
            seen.add((name, *fields))
            texts = present.texts([(text, where) for text in fields])
            if not present.has_picture(name, where) or texts is None:
                continue
            present.notes["captions that are alike"] += texts[0] == texts[1]
            images.append(Picture(root, name))
            choices.append(texts)
            groups.append(kind)
    coverage = present.coverage(len(images), num_expected, inputs)
    return ChoiceSet(images, choices, groups, coverage)
