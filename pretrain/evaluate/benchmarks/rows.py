"""From rows of annotation files, an image and a text each, to a set for retrieval."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pretrain.evaluate.benchmarks.base import Options, Picture, RetrievalSet
from pretrain.evaluate.benchmarks.present import Present


@dataclass(frozen=True)
class Row:
    """One image and one text of it, as an annotation file has them."""

    image: str  # relative to the root
    text: str
    where: str  # file and line or field, for errors
    annotation: str = ""  # its name, where several annotators may have written the same words


def retrieval_set(
    name: str,
    root: Path,
    rows: Sequence[Row],
    num_images: int,
    options: Options,
    inputs: Sequence[Path],
    missing: Sequence[str] = (),
    num_texts: int | None = None,
    most_texts: int | None = None,
) -> RetrievalSet:
    """Images in the order of their first row, each with all its texts.

    A row that stands there twice counts once. A picture that is not there, a text that is empty,
    and images or texts that the annotations lack are errors, or, with `allow_missing`, passed over
    and counted; so are then pictures that do not open.

    Args:
        rows: of the annotation files.
        num_images: of the protocol.
        inputs: the annotation files.
        missing: what the reader itself had to pass over.
        num_texts: of the protocol; None: it names no number.
        most_texts: of an image, its first ones; None: all of them.

    Raises:
        LayoutError: something is missing, or nothing is left.
    """
    present = Present(name, root, options)
    for what in missing:
        present.lacks(what)
    position_of: dict[str, int] = {}
    texts: list[str] = []
    image_of_text: list[int] = []
    seen: set[tuple[str, str, str]] = set()
    texts_of: Counter[str] = Counter()
    num_empty = 0
    for row in rows:
        if texts_of[row.image] == most_texts or not present.has_picture(row.image, row.where):
            continue
        text = present.text(row.text)
        if (row.image, text, row.annotation) in seen:
            present.notes["rows that were there before"] += 1
            continue
        seen.add((row.image, text, row.annotation))
        if not text:
            present.lacks(f"the text of {row.where}")
            num_empty += 1
            continue
        texts_of[row.image] += 1
        image_of_text.append(position_of.setdefault(row.image, len(position_of)))
        texts.append(text)
    # Of fewer images there are fewer texts: that is told once.
    num_absent = (num_texts or 0) - len(texts) - num_empty
    if num_absent > 0 and len(position_of) == num_images:
        present.lacks(f"{num_absent:,} of {num_texts:,} texts")
    present.notes["images with several texts"] = sum(count > 1 for count in texts_of.values())
    different = len(set(zip(image_of_text, texts, strict=True)))
    present.notes["texts that several annotators wrote alike"] = len(texts) - different
    present.notes["texts that another image has, too"] = different - len(set(texts))
    return RetrievalSet(
        images=[Picture(root, image) for image in position_of],
        texts=texts,
        image_of_text=image_of_text,
        coverage=present.coverage(
            len(position_of), num_images, inputs, num_texts=(len(texts), num_texts)
        ),
    )
