"""Captions that a model writes for many images alike, whatever they show.

MinHash (Broder 1997) over sequences of words, with locality-sensitive hashing to find those that
are worth comparing. Nothing depends on the order of the captions.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rensa import RMinHash

from recaption.common.config import ConfigError, check_at_least
from recaption.filters.words import plain_words


@dataclass
class NearDuplicateConfig:
    #: A caption is rejected if it resembles at least so many others of its shard, up to 50; 0 for
    #: never.
    min_others: int = 20
    #: Captions resemble each other if they share at least this share of their word sequences
    #: (Jaccard similarity). Five words changed in 120 leave about 0.77.
    similarity: float = 0.7
    #: Words in a sequence.
    ngram: int = 3
    #: Shorter captions are not compared: `A dog runs on grass.` fits many images.
    min_words: int = 15

    def __post_init__(self) -> None:
        check_at_least(0, {"filters.near_duplicates.min_others": self.min_others})
        if self.min_others > _MAX_COMPARED // 2:
            raise ConfigError(
                f"filters.near_duplicates.min_others={self.min_others}: it must be at most "
                f"{_MAX_COMPARED // 2}, as no more captions are compared with one"
            )
        for name in ("ngram", "min_words"):
            check_at_least(1, {f"filters.near_duplicates.{name}": getattr(self, name)})
        if not 0.5 <= self.similarity <= 1:
            raise ConfigError(
                f"filters.near_duplicates.similarity={self.similarity}: it must be 0.5 to 1"
            )


# Two captions that share 0.7 meet in a band with probability 0.99, at 0.3 with 0.06.
_NUM_BANDS, _BAND_SIZE = 25, 5
_SEED = 5
#: Captions that are compared with one, of a band and in all: of that many which share a band, a
#: part that is worth counting is alike, and time must not grow with the square of the number.
_MAX_COMPARED, _MAX_COMPARED_IN_ALL = 100, 500


def near_duplicates(
    captions: Sequence[str | None], config: NearDuplicateConfig
) -> list[str | None]:
    """``near-duplicate: detail`` for each caption that resembles many others, else None.

    Args:
        captions: of one shard and one prompt; None for rows that have none, or are rejected.

    The verdict on a caption depends on the set of captions alone, not on their order.
    """
    if config.min_others == 0:
        return [None] * len(captions)
    words = [None if caption is None else plain_words(caption) for caption in captions]
    texts = [None if w is None or len(w) < config.min_words else " ".join(w) for w in words]
    counts = Counter(text for text in texts if text is not None)
    # The order of hashes is the same however the captions came, and has nothing to do with them.
    distinct = sorted(counts, key=lambda text: hashlib.sha256(text.encode()).digest())
    if not distinct:
        return [None] * len(captions)
    num_others = _count_others(distinct, np.array([counts[text] for text in distinct]), config)
    reasons = {
        text: f"near-duplicate: resembles at least {config.min_others} others of its shard"
        for text, num in zip(distinct, num_others, strict=True)
        if num >= config.min_others
    }
    return [None if text is None else reasons.get(text) for text in texts]


def _count_others(texts: list[str], counts: np.ndarray, config: NearDuplicateConfig) -> list[int]:
    """For each text: how many captions resemble it; not counted further than is asked for."""
    signatures = _sign(texts, config.ngram)
    bands = _group(signatures)
    found: list[int] = []
    for index in range(len(texts)):
        num_others = int(counts[index]) - 1
        compared = {index}
        for members in bands[index]:
            if num_others >= config.min_others or len(compared) > _MAX_COMPARED_IN_ALL:
                break
            others = [other for other in members if other not in compared]
            compared.update(others)
            equal = (signatures[others] == signatures[index]).mean(axis=1)
            num_others += int(counts[others][equal >= config.similarity].sum())
        found.append(num_others)
    return found


def _sign(texts: list[str], ngram: int) -> np.ndarray:
    """(texts, values) uint32: the share of equal values estimates the Jaccard similarity."""
    shingles = []
    for text in texts:
        words = text.split()
        shingles.append([" ".join(words[i : i + ngram]) for i in range(len(words) - ngram + 1)])
    num_values = _NUM_BANDS * _BAND_SIZE
    digests = RMinHash.digests_from_token_sets(shingles, num_perm=num_values, seed=_SEED)
    return np.asarray(digests, dtype=np.uint32)


def _group(signatures: np.ndarray) -> list[list[list[int]]]:
    """For each text and band: the texts with the same values there, itself and a few at most."""
    groups: list[list[list[int]]] = [[] for _ in signatures]
    for band in range(_NUM_BANDS):
        columns = np.ascontiguousarray(signatures[:, band * _BAND_SIZE : (band + 1) * _BAND_SIZE])
        members: defaultdict[bytes, list[int]] = defaultdict(list)
        for index, row in enumerate(columns):
            members[row.tobytes()].append(index)
        for same in members.values():
            if len(same) > 1:
                few = same[:_MAX_COMPARED]
                for index in same:
                    groups[index].append(few)
    return groups
