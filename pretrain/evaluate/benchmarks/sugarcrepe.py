"""SugarCrepe: a caption against one that is wrong in a detail, on COCO val2017."""

from pathlib import Path

from pretrain.evaluate.benchmarks.base import ChoiceSet, LayoutError, Options, Picture
from pretrain.evaluate.benchmarks.layout import (
    Present,
    choose_variant,
    field,
    need,
    read_annotations,
    text_field,
)

PROTOCOL = (
    "SugarCrepe (Hsieh et al. 2023): whole images of COCO val2017, a right and a wrong caption; "
    "right if the right one scores strictly higher. By kind of change (7 files); mean_of_groups "
    "is the mean over the 7 kinds."
)
KINDS = (
    "add_att",
    "add_obj",
    "replace_att",
    "replace_obj",
    "replace_rel",
    "swap_att",
    "swap_obj",
)


def read_sugarcrepe(root: Path, options: Options) -> ChoiceSet:
    """`root` (or its data/) with seven JSON files, and `root`/val2017.

    Raises:
        LayoutError: files are missing, or an entry is not as published.
    """
    choose_variant(options, ("all",))
    names = [f"{folder}{kind}.json" for folder in ("", "data/") for kind in KINDS]
    folder = need(root, *names).parent
    present = Present(root, options)
    images, choices, groups = [], [], []
    num_entries = num_equal = num_repeated = 0
    for kind in KINDS:
        path = folder / f"{kind}.json"
        if not present.has(str(path.relative_to(root))):
            continue
        seen: set[tuple[str, ...]] = set()
        for key, entry in read_annotations(path, dict).items():
            where = f"{path} entry {key}"
            num_entries += 1
            file_name = field(entry, "filename", str, where)
            if not file_name or Path(file_name).name != file_name:
                raise LayoutError(f"{where}: filename {file_name!r} is no name of a file")
            name = f"val2017/{file_name}"
            texts = [text_field(entry, n, where) for n in ("caption", "negative_caption")]
            if not present.has(name):
                continue
            num_equal += texts[0] == texts[1]
            num_repeated += (name, *texts) in seen
            seen.add((name, *texts))
            images.append(Picture(root, name))
            choices.append(texts)
            groups.append(kind)
    notes = {"captions_alike": num_equal, "entries_repeated": num_repeated}
    return ChoiceSet(images, choices, groups, present.coverage(len(images), num_entries, notes))
