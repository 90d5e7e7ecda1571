"""Densely Captioned Images (Urbanek et al., CVPR 2024): one long text an image."""

from pathlib import Path

from pretrain.evaluate.benchmarks.base import LayoutError, Options, RetrievalSet
from pretrain.evaluate.benchmarks.layout import (
    Row,
    field,
    find_file,
    read_json_file,
    retrieval_set,
    text_field,
)

VARIANTS = {
    "7805": "all images of all splits of densely_captioned_images/splits.json; the text is the "
    "short caption, a new line, and the extra caption",
    "1999": "the images and texts of DCI_test.json, the list that GOAL publishes, in its order",
}
_FOLDER = "densely_captioned_images"


def read(root: Path, options: Options) -> RetrievalSet:
    """Raises: LayoutError."""
    if options.variant == "1999":
        return _read_list(root, options)
    splits_file = find_file(root, f"{_FOLDER}/splits.json")
    rows: list[Row] = []
    inputs = [splits_file]
    missing: list[str] = []
    splits = read_json_file(splits_file)
    if not isinstance(splits, dict) or not all(isinstance(n, list) for n in splits.values()):
        raise LayoutError(f"{splits_file} must map splits to lists of annotation files")
    for name in (name for names in splits.values() for name in names):
        path = root / _FOLDER / "annotations" / name
        if not path.is_file():
            missing.append(f"{_FOLDER}/annotations/{name}")
            continue
        inputs.append(path)
        entry, where = read_json_file(path), str(path)
        short, extra = (text_field(entry, f"{kind}_caption", where) for kind in ("short", "extra"))
        image = f"{_FOLDER}/photos/{text_field(entry, 'image', where)}"
        rows.append(Row(image, f"{short}\n{extra}", where))
    return retrieval_set("dci", root, rows, 7805, options, inputs, missing)


def _read_list(root: Path, options: Options) -> RetrievalSet:
    path = find_file(root, "DCI_test.json", f"{_FOLDER}/DCI_test.json")
    rows = []
    for number, entry in enumerate(read_json_file(path)):
        where = f"{path}, entry {number}"
        # It names files as they lay on its authors' machine.
        name = Path(text_field(entry, "filename", where)).name
        rows.append(Row(f"{_FOLDER}/photos/{name}", str(field(entry, "caption", where)), where))
    return retrieval_set("dci", root, rows, 1999, options, [path])
