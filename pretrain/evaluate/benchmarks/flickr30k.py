"""Flickr30k (Young et al., TACL 2014): five short texts an image."""

from pathlib import Path

from pretrain.evaluate.benchmarks.base import LayoutError, Options, RetrievalSet
from pretrain.evaluate.benchmarks.layout import (
    find_file,
    list_field,
    read_json_file,
    read_lines,
    text_field,
)
from pretrain.evaluate.benchmarks.rows import Row, retrieval_set

VARIANTS = {
    "test": "the 1,000 test images of Karpathy's split (names in test.txt, or "
    "dataset_flickr30k.json) with their five captions of results_20130124.token; image to text "
    "counts a hit if any of them is found"
}
_NUM_IMAGES, _NUM_TEXTS = 1000, 5000


def read(root: Path, options: Options) -> RetrievalSet:
    """Raises: LayoutError."""
    path = find_file(root, "results_20130124.token")
    split_file = find_file(root, "test.txt", "flickr30k_test.txt", "dataset_flickr30k.json")
    names = _test_images(split_file)
    captions: dict[str, list[Row]] = {name: [] for name in names}
    for where, line in read_lines(path):
        name, tab, text = line.partition("\t")
        image, hash_sign, number = name.partition("#")
        if not (tab and hash_sign):
            raise LayoutError(f"{where} is not IMAGE.jpg#NUMBER, a tabulator, and a caption")
        if image in captions:
            captions[image].append(Row(f"flickr30k-images/{image}", text, where, number))
    rows = [row for of_image in captions.values() for row in of_image]
    without = [f"a caption of {name}" for name, of_image in captions.items() if not of_image]
    inputs = [path, split_file]
    return retrieval_set(
        "flickr30k", root, rows, _NUM_IMAGES, options, inputs, without, num_texts=_NUM_TEXTS
    )


def _test_images(path: Path) -> list[str]:
    """Names of image files."""
    if path.suffix == ".json":
        images = list_field(read_json_file(path, dict), "images", str(path))
        entries = [(entry, f"{path}, image {number}") for number, entry in enumerate(images)]
        tests = [(e, where) for e, where in entries if text_field(e, "split", where) == "test"]
        return [text_field(entry, "filename", where) for entry, where in tests]
    names = [line.strip() for _, line in read_lines(path)]
    return [name if name.endswith(".jpg") else f"{name}.jpg" for name in names]
