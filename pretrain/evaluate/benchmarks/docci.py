"""DOCCI (Onoe et al., ECCV 2024): one long description an image."""

from pathlib import Path

from pretrain.evaluate.benchmarks.base import Options, RetrievalSet
from pretrain.evaluate.benchmarks.layout import find_file, read_json_lines, text_field
from pretrain.evaluate.benchmarks.rows import Row, retrieval_set

VARIANTS = {
    "test": "the 5,000 images of split test, one description each, not split into sentences",
    "test+qual_test": "the 5,100 images of the splits test and qual_test, one description each",
}
_NUM_IMAGES = {"test": 5000, "test+qual_test": 5100}
_FILES = ("docci_descriptions.jsonlines", "docci_descriptions.jsonline")


def read(root: Path, options: Options) -> RetrievalSet:
    """Raises: LayoutError."""
    variant = options.variant or "test"
    names = [f"{folder}{name}" for folder in ("annotations/", "") for name in _FILES]
    path = find_file(root, *names)
    rows = [
        Row(
            f"images/{text_field(entry, 'image_file', where)}",
            text_field(entry, "description", where),
            where,
        )
        for where, entry in read_json_lines(path)
        if text_field(entry, "split", where) in variant.split("+")
    ]
    number = _NUM_IMAGES[variant]
    return retrieval_set("docci", root, rows, number, options, [path], num_texts=number)
