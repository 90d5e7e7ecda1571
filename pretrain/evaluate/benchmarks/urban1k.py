"""Urban1k (Zhang et al., Long-CLIP, ECCV 2024): city scenes with one long caption each."""

from pathlib import Path

from pretrain.evaluate.benchmarks.base import DamagedError, Options, RetrievalSet
from pretrain.evaluate.benchmarks.layout import find_folder, read_text, visible
from pretrain.evaluate.benchmarks.rows import Row, retrieval_set

VARIANTS = {"": "image/N.jpg with the first line of caption/N.txt, all 1,000 pairs"}


def read(root: Path, options: Options) -> RetrievalSet:
    """Raises: LayoutError."""
    captions, images = find_folder(root, "caption"), find_folder(root, "image")
    paths = sorted(visible(root / captions, "*.txt"), key=lambda path: _number(path.stem))
    named = {path.stem for path in paths}
    without = [path for path in visible(root / images, "*.jpg") if path.stem not in named]
    missing = [f"{captions}/{path.stem}.txt" for path in without]
    rows, inputs = [], []
    for path in paths:
        try:
            text = read_text(path).partition("\n")[0]
        except DamagedError as error:
            if not options.allow_missing:
                raise
            missing.append(str(error))
            continue
        rows.append(Row(f"{images}/{path.stem}.jpg", text, str(path)))
        inputs.append(path)
    return retrieval_set("urban1k", root, rows, 1000, options, inputs, missing, num_texts=1000)


def _number(stem: str) -> tuple[int, str]:
    return (int(stem) if stem.isdecimal() else -1, stem)
