"""COCO captions, val2017 (Lin et al. 2014; Chen et al. 2015): about five short texts an image."""

from pathlib import Path

from pretrain.evaluate.benchmarks.base import LayoutError, Options, RetrievalSet
from pretrain.evaluate.benchmarks.layout import (
    find_file,
    list_field,
    read_json_file,
    text_field,
    typed_field,
)
from pretrain.evaluate.benchmarks.rows import Row, retrieval_set

VARIANTS = {
    "all": "the 5,000 images of val2017 with all their 25,014 captions; image to text counts a hit "
    "if any caption of the image is found",
    "first5": "the same with the first five captions of each image, 25,000",
}
_NUM_IMAGES = 5000
_NUM_TEXTS = {"all": 25_014, "first5": 25_000}


def read(root: Path, options: Options) -> RetrievalSet:
    """Raises: LayoutError."""
    path = find_file(root, "annotations/captions_val2017.json")
    tree = read_json_file(path, dict)
    name_of: dict[int, str] = {}
    for number, image in enumerate(list_field(tree, "images", str(path))):
        where = f"{path}, image {number}"
        name_of[typed_field(image, "id", int, where)] = text_field(image, "file_name", where)
    captions: dict[int, list[Row]] = {image: [] for image in name_of}
    for number, annotation in enumerate(list_field(tree, "annotations", str(path))):
        where = f"{path}, annotation {number}"
        image = typed_field(annotation, "image_id", int, where)
        if image not in name_of:
            raise LayoutError(f"{where} belongs to image {image}, which the file does not list")
        text = text_field(annotation, "caption", where)
        name = str(typed_field(annotation, "id", int, where))
        captions[image].append(Row(f"val2017/{name_of[image]}", text, where, name))
    rows = [row for of_image in captions.values() for row in of_image]
    without = [f"a caption of {name_of[image]}" for image, of in captions.items() if not of]
    variant = options.variant or "all"
    return retrieval_set(
        "coco",
        root,
        rows,
        _NUM_IMAGES,
        options,
        [path],
        without,
        num_texts=_NUM_TEXTS[variant],
        most_texts=5 if variant == "first5" else None,
    )
