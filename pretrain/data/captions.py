"""Which texts of an image a step sees: CAFT's parts, FLAIR's sentences, or the whole caption."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from recaption.common.config import check_choice

Captions = Mapping[str, Sequence[str]]  # source -> sentences; the alt text's source is `raw`

_MIN_SENTENCES = 3  # a caption with fewer is not long enough to be cut into parts


@dataclass
class PartsConfig:
    num_parts: int = 4  # ordered parts of one long caption; the whole text is made of these
    num_free: int = 4  # further texts of 1-3 sentences each, drawn from the other captions
    max_sentences: int = 3  # most sentences in one text, but for the last part


@dataclass
class DiverseConfig:
    num_texts: int = 8  # texts an image
    max_sentences: int = 3  # most sentences in one text


@dataclass
class CaptionsConfig:
    # parts: ordered parts and free texts (CAFT); diverse: sentences of all captions (FLAIR); whole:
    # one whole caption (CLIP)
    name: str = "parts"
    parts: PartsConfig = field(default_factory=PartsConfig)
    diverse: DiverseConfig = field(default_factory=DiverseConfig)
    # captions to use, by source; empty: all of them, the alt text (`raw`) included
    sources: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_choice("data.captions.name", self.name, ("parts", "diverse", "whole"))


def split_caption(text: str, min_characters: int = 3) -> list[str]:
    """Splits at newlines, ``</s>`` and full stops; shorter pieces are dropped.

    The published pre-processing of training captions drops pieces under 3 characters, the
    published evaluation only empty ones.
    """
    pieces = (piece.strip() for piece in re.split(r"\n|</s>|\.", text))
    return [piece for piece in pieces if len(piece) >= min_characters]


def join_sentences(sentences: Sequence[str]) -> str:
    """Joins by '. ' without a final full stop, as the published text encoders read it."""
    return ". ".join(sentence.strip().rstrip(".").rstrip() for sentence in sentences)


def sample_texts(captions: Captions, config: CaptionsConfig, rng: Random) -> list[str]:
    """The texts of one image for one step; always the same number of them.

    Raises:
        ValueError: if the image has no sentence in any of the sources wanted.
    """
    captions = select_sources(captions, config)
    if config.name == "whole":
        return [join_sentences(rng.choice(list(captions.values())))]
    if config.name == "diverse":
        return sample_diverse(captions, config.diverse, rng)
    return sample_parts(captions, config.parts, rng)


def evaluation_texts(captions: Captions, config: CaptionsConfig, source: str) -> list[str]:
    """The texts of one caption for evaluation: deterministic parts, or the whole."""
    sentences = select_sources(captions, CaptionsConfig(sources=[source] if source else []))
    longest = max(sentences.values(), key=len)
    if config.name != "parts":
        return [join_sentences(longest)]
    return evaluation_parts(longest, config.parts.num_parts, config.parts.max_sentences)


def texts_of_caption(caption: str, config: CaptionsConfig, min_characters: int = 3) -> list[str]:
    """The texts that a model reads of a caption; one too short to have sentences is its own.

    Args:
        min_characters: of its sentences, as `split_caption` takes it.
    """
    return evaluation_texts({"": split_caption(caption, min_characters) or [caption]}, config, "")


def num_texts(config: CaptionsConfig) -> int:
    """K, texts an image in training."""
    if config.name == "whole":
        return 1
    if config.name == "diverse":
        return config.diverse.num_texts
    return config.parts.num_parts + config.parts.num_free


def select_sources(captions: Captions, config: CaptionsConfig) -> dict[str, Sequence[str]]:
    wanted = config.sources or list(captions)
    selected = {source: captions[source] for source in wanted if captions.get(source)}
    if not selected:
        raise ValueError(f"no sentences from {wanted}; the sample has {sorted(captions)}")
    return selected


def sample_parts(captions: Captions, config: PartsConfig, rng: Random) -> list[str]:
    """CAFT's training texts: parts of one long caption, then free texts from the others.

    A caption is long if it has at least 3 sentences and is not the alt text; one of those is
    drawn. Where there is none, up to 8 sentences of all captions stand in for it, and the free
    texts come from all of them. Where no other caption is left, the free texts come from the
    chosen one.
    """
    long_captions = [
        source
        for source, sentences in captions.items()
        if source != "raw" and len(sentences) >= _MIN_SENTENCES
    ]
    every_sentence = [sentence for sentences in captions.values() for sentence in sentences]
    if long_captions:
        chosen = rng.choice(long_captions)
        sentences = list(captions[chosen])
        free_pool = [
            sentence
            for source, others in captions.items()
            if source != chosen
            for sentence in others
        ] or sentences
    else:
        num_drawn = min(len(every_sentence), config.num_parts + config.num_free)
        drawn = sorted(rng.sample(range(len(every_sentence)), num_drawn))
        sentences = [every_sentence[index] for index in drawn]
        free_pool = every_sentence
    parts = random_partition(sentences, config.num_parts, config.max_sentences, rng)
    free = [_free_text(free_pool, config.max_sentences, rng) for _ in range(config.num_free)]
    return [join_sentences(part) for part in parts] + free


def sample_diverse(captions: Captions, config: DiverseConfig, rng: Random) -> list[str]:
    """FLAIR's training texts: each 1 to ``max_sentences`` sentences from all captions.

    Half of those of several sentences are a run, which may lead from one caption into the next; as
    published, the last sentence of all is never part of one. The others are drawn at random.
    """
    pool = [sentence for sentences in captions.values() for sentence in sentences]
    texts = []
    for _ in range(config.num_texts):
        count = rng.randint(1, config.max_sentences)
        if count == 1:
            text = [rng.choice(pool)]
        elif rng.random() < 0.5:
            start = rng.randrange(len(pool) - count) if count < len(pool) else 0
            text = pool[start : start + count]
        elif count <= len(pool):
            text = rng.sample(pool, count)
        else:
            text = [rng.choice(pool) for _ in range(count)]
        texts.append(join_sentences(text))
    return texts


def _free_text(pool: Sequence[str], max_sentences: int, rng: Random) -> str:
    count = rng.randint(1, max_sentences)
    if count <= len(pool):
        return join_sentences(rng.sample(pool, count))
    return join_sentences(rng.choices(pool, k=count))


def random_partition(
    sentences: Sequence[str], num_parts: int, max_sentences: int, rng: Random
) -> list[list[str]]:
    """Cuts sentences at random into contiguous parts of 1 to ``max_sentences``.

    With fewer sentences than parts some are repeated; with ``num_parts * max_sentences`` or more
    every part is full and the last takes the rest.
    """
    count = len(sentences)
    if count <= num_parts:
        repeats = [rng.choice(sentences) for _ in range(num_parts - count)]
        return [[sentence] for sentence in [*sentences, *repeats]]
    if count >= num_parts * max_sentences:
        return _cut(sentences, [max_sentences] * (num_parts - 1))
    sizes: list[int] = []
    remaining = count
    for num_parts_left in range(num_parts - 1, 0, -1):
        smallest = max(1, remaining - max_sentences * num_parts_left)
        largest = min(max_sentences, remaining - num_parts_left)
        sizes.append(rng.randint(smallest, largest))
        remaining -= sizes[-1]
    return _cut(sentences, sizes)


def evaluation_parts(
    sentences: Sequence[str], num_parts: int = 4, max_sentences: int = 3
) -> list[str]:
    """A deterministic, near-even cut into ``num_parts`` texts.

    At most ``max_sentences`` each, the rest in the last; fewer sentences than parts are repeated
    cyclically.
    """
    count = len(sentences)
    if count == 0:
        raise ValueError("a caption without sentences cannot be cut into parts")
    if count <= num_parts:
        return [join_sentences([sentences[index % count]]) for index in range(num_parts)]
    if count > num_parts * max_sentences:
        sizes = [max_sentences] * (num_parts - 1)
    else:
        size, num_longer = divmod(count, num_parts)
        sizes = [size + (index < num_longer) for index in range(num_parts - 1)]
    return [join_sentences(part) for part in _cut(sentences, sizes)]


def _cut(sentences: Sequence[str], sizes: Sequence[int]) -> list[list[str]]:
    """Contiguous parts of the given sizes, and a last one with all that is left."""
    parts: list[list[str]] = []
    start = 0
    for size in sizes:
        parts.append(list(sentences[start : start + size]))
        start += size
    return [*parts, list(sentences[start:])]
