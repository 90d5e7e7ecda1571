"""What of a set is evaluated: which samples, which of their captions, which of their sentences."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from pretrain.config import PretrainConfig
from pretrain.data.captions import evaluation_texts
from pretrain.data.stream import read_samples
from pretrain.data.transforms import ImageConfig, seen_box
from pretrain.evaluate.maps import clip_box
from pretrain.evaluate.naming import Named, named_thing, vocabulary_of
from recaption.common.config import UserError


@dataclass(frozen=True)
class Example:
    """One image of the evaluation without its pixels, which are read again when they are needed."""

    index: int  # in the set
    key: str
    size: tuple[int, int]  # width, height of the picture
    sentences: tuple[str, ...]
    texts: tuple[str, ...]  # what the model reads: the caption's parts, or all of it
    objects: tuple[dict, ...]


@dataclass(frozen=True)
class ExampleSet:
    examples: list[Example]
    num_without_caption: int  # samples passed over because the source has no sentence for them


def choose_examples(
    folder: Path, config: PretrainConfig, source: str, num_samples: int
) -> ExampleSet:
    """The first `num_samples` samples that have a caption of `source` (empty: their longest).

    Raises:
        UserError: if no sample has such a caption.
    """
    examples: list[Example] = []
    sources: set[str] = set()
    num_seen = 0
    for index, sample in enumerate(read_samples(folder)):
        if len(examples) == num_samples:
            break
        num_seen += 1
        captions = {name: lines for name, lines in sample.captions.items() if lines}
        sources |= set(captions)
        chosen = [captions[source]] if source in captions else []
        if not source:
            chosen = list(captions.values())
        if chosen:
            longest = max(chosen, key=len)
            texts = evaluation_texts({"": longest}, config.data.captions, "")
            examples.append(
                Example(
                    index,
                    sample.key,
                    sample.image.size,
                    tuple(longest),
                    tuple(texts),
                    tuple(sample.objects),
                )
            )
    if not examples:
        wanted = f"from source {source!r}" if source else "at all"
        raise UserError(
            f"{folder}: no sample has a caption {wanted}; sources there: {sorted(sources)}"
        )
    return ExampleSet(examples, num_seen - len(examples))


def named_sentences(examples: Sequence[Example], image: ImageConfig) -> list[list[Named]]:
    """For each example the sentences that name exactly one thing, with the thing's boxes.

    Boxes are fractions of what the model sees; things outside of it are not looked for.
    """
    vocabulary = vocabulary_of(example.objects for example in examples)
    chosen: list[list[Named]] = []
    for example in examples:
        seen = seen_box(*example.size, image)
        found = []
        for sentence in dict.fromkeys(example.sentences):
            named = named_thing(sentence, example.objects, vocabulary)
            if named is None:
                continue
            clipped = (clip_box(box, seen) for box in named.boxes)
            boxes = tuple(box for box in clipped if box is not None)
            if boxes:
                found.append(Named(sentence, named.name, boxes))
        chosen.append(found)
    return chosen


def read_pictures(folder: Path, examples: Sequence[Example]) -> Iterator[tuple[int, Image.Image]]:
    """(position in `examples`, picture) of each; in one pass, in the order of the set."""
    position_of = {example.index: position for position, example in enumerate(examples)}
    last = max(position_of)
    for index, sample in enumerate(read_samples(folder)):
        if index in position_of:
            yield position_of[index], sample.image
        if index == last:
            return
