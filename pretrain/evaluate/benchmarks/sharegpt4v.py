"""ShareGPT4V's images of SA-1B with captions of an LVLM (Chen et al., ECCV 2024; Long-CLIP)."""

from pathlib import Path

from pretrain.evaluate.benchmarks.base import Options, RetrievalSet
from pretrain.evaluate.benchmarks.layout import (
    field,
    find_file,
    list_field,
    read_json_file,
    text_field,
)
from pretrain.evaluate.benchmarks.rows import Row, retrieval_set

VARIANTS = {
    "10k": "the first 10,000 entries of share4v_sam_10k.json; the text is what the model answers",
    "1k": "the first 1,000 entries of share4v_sam_10k.json; the text is what the model answers",
}
_NUM_IMAGES = {"10k": 10_000, "1k": 1_000}


def read(root: Path, options: Options) -> RetrievalSet:
    """Raises: LayoutError."""
    path = find_file(root, "share4v_sam_10k.json")
    number = _NUM_IMAGES[options.variant or "10k"]
    rows = []
    for place, entry in enumerate(read_json_file(path, list)[:number]):
        where = f"{path}, entry {place}"
        answer = field(list_field(entry, "conversations", where), 1, where)
        rows.append(
            Row(text_field(entry, "image", where), text_field(answer, "value", where), where)
        )
    return retrieval_set("sharegpt4v", root, rows, number, options, [path], num_texts=number)
