"""Densely Captioned Images (Urbanek et al., CVPR 2024): one long text an image."""

from pathlib import Path

from pretrain.evaluate.benchmarks.base import DamagedError, JointSet, Options, RetrievalSet
from pretrain.evaluate.benchmarks.layout import (
    check_inside,
    find_file,
    is_file,
    list_field,
    read_json_file,
    text_field,
)
from pretrain.evaluate.benchmarks.rows import Row, retrieval_set

VARIANTS = {
    "7805": "all images of all splits of densely_captioned_images/splits.json; the text is the "
    "short caption, a new line, and the extra caption",
    "1999": "the images and texts of DCI_test.json, the list that GOAL publishes, in its order",
    "joint": "mAP@10 among the whole pictures and the parts of GOAL's joint global and local test "
    "(DCI_test_joint_sim_max_1:1.json); the parts are cut by its scripts, not published",
}
_FOLDER = "densely_captioned_images"
_PARTS = "segment_with_background"  # how the folder of parts begins


def read(root: Path, options: Options) -> RetrievalSet:
    """Raises: LayoutError."""
    if options.variant == "1999":
        return _read_list(root, options)
    if options.variant == "joint":
        return _read_joint(root, options)
    splits_file = find_file(root, f"{_FOLDER}/splits.json")
    rows: list[Row] = []
    inputs = [splits_file]
    missing: list[str] = []
    for name in _annotations(splits_file):
        path = root / _FOLDER / "annotations" / name
        if not is_file(path):
            missing.append(f"{_FOLDER}/annotations/{name}")
            continue
        try:
            entry, where = read_json_file(path, dict), str(path)
        except DamagedError as error:
            if not options.allow_missing:
                raise
            missing.append(str(error))
            continue
        inputs.append(path)
        short, extra = (text_field(entry, f"{kind}_caption", where) for kind in ("short", "extra"))
        image = f"{_FOLDER}/photos/{text_field(entry, 'image', where)}"
        rows.append(Row(image, f"{short}\n{extra}", where))
    return retrieval_set("dci", root, rows, 7805, options, inputs, missing, num_texts=7805)


def _annotations(splits_file: Path) -> list[str]:
    """Names of the annotation files of all splits."""
    splits = read_json_file(splits_file, dict)
    names = []
    for split in splits:
        listed = list_field(splits, split, str(splits_file))
        where = f"{splits_file}, {split}"
        of_split = [text_field(listed, number, where) for number in range(len(listed))]
        for name in of_split:
            check_inside(name, where)
        names += of_split
    return names


def _read_list(root: Path, options: Options) -> RetrievalSet:
    path = find_file(root, "DCI_test.json", f"{_FOLDER}/DCI_test.json")
    return retrieval_set("dci", root, _rows(path), 1999, options, [path], num_texts=1999)


def _read_joint(root: Path, options: Options) -> JointSet:
    names = [f"DCI_test_joint_sim_max_{end}.json" for end in ("1:1", "11")]
    path = find_file(root, *names, *(f"{_FOLDER}/{name}" for name in names))
    rows = _rows(path)
    num_images = len({row.image for row in rows})
    read = retrieval_set("dci", root, rows, num_images, options, [path])
    place_of = {image.name: place for place, image in enumerate(read.images)}
    whole = [place_of.get(_whole(image.name), place) for place, image in enumerate(read.images)]
    return JointSet(read.images, read.texts, read.image_of_text, read.coverage, whole)


def _rows(path: Path) -> list[Row]:
    """Of a list by GOAL, which names files as they lay on its authors' machine."""
    rows = []
    for number, entry in enumerate(read_json_file(path, list)):
        where = f"{path}, entry {number}"
        name = Path(text_field(entry, "filename", where))
        image = f"{_FOLDER}/photos/{name.name}"
        if len(name.parts) > 2 and name.parts[-3].startswith(_PARTS):
            image = "/".join(name.parts[-3:])
        rows.append(Row(image, text_field(entry, "caption", where), where))
    return rows


def _whole(image: str) -> str:
    """The photo that a part was cut from: parts lie in PARTS/PHOTO_results/; itself of a photo."""
    if not image.startswith(_PARTS):
        return image
    return f"{_FOLDER}/photos/{Path(image).parent.name.removesuffix('_results')}"
