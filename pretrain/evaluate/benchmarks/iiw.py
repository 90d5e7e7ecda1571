"""ImageInWords (Garg et al., EMNLP 2024): three small sets with very long descriptions."""

from pathlib import Path

from pretrain.evaluate.benchmarks.base import Options, RetrievalSet
from pretrain.evaluate.benchmarks.layout import (
    check_inside,
    find_file,
    is_file,
    read_json_lines,
    text_field,
)
from pretrain.evaluate.benchmarks.rows import Row, retrieval_set

VARIANTS = {
    "": "all 612 descriptions `IIW` of IIW-400 (400), DCI_Test (112) and DOCCI_Test (100) as one "
    "set; images beside data.jsonl, in its folder images/, or in dci/, docci/ and docci_aar/"
}
#: Sets, and the folder into which LoTLIP's preparation puts their images.
_SETS = {"IIW-400": "docci_aar", "DCI_Test": "dci", "DOCCI_Test": "docci"}


def read(root: Path, options: Options) -> RetrievalSet:
    """Raises: LayoutError."""
    rows: list[Row] = []
    inputs: list[Path] = []
    missing: list[str] = []
    find_file(root, *(f"{name}/data.jsonl" for name in _SETS))  # one of them, or a wrong root
    for name, folder in _SETS.items():
        path = root / name / "data.jsonl"
        if not path.is_file():
            missing.append(f"{name}/data.jsonl")
            continue
        inputs.append(path)
        for where, entry in read_json_lines(path):
            key = "image" if "image" in entry else "image/key"
            image_key = text_field(entry, key, where)
            check_inside(image_key, where)
            image = _find_image(root, (f"{name}/images", name, folder), image_key)
            rows.append(Row(image, text_field(entry, "IIW", where), where))
    return retrieval_set("iiw", root, rows, 612, options, inputs, missing, num_texts=612)


def _find_image(root: Path, folders: tuple[str, ...], key: str) -> str:
    """A picture's name relative to the root; keys of DOCCI's sets come without an ending."""
    ends = [""] if Path(key).suffix else [".jpg", ".png", ""]
    names = [f"{folder}/{key}{end}" for folder in folders for end in ends]
    return next((name for name in names if is_file(root / name)), names[0])
