"""Loops: a model that says the same again and again."""

import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from operator import eq

from recaption.common.config import ConfigError, check_at_least
from recaption.filters.words import plain_words


@dataclass
class RepetitionConfig:
    #: Words in the sequences that are looked at for repetition.
    ngram: int = 4
    #: Largest share of a caption's n-grams that repeat an earlier one. A loop comes near 1.
    max_share: float = 0.5
    #: Most times that the same words may follow each other: `red red red red` are four.
    max_loops: int = 3
    #: Words in the longest sequence that counts as such a loop.
    max_loop_words: int = 12
    #: Most letters or signs in a row that are one short piece again and again, such as `.....`
    max_run: int = 15
    #: Most times that a sentence of four words or more may occur.
    max_same_sentence: int = 2

    def __post_init__(self) -> None:
        for name in ("ngram", "max_loops", "max_loop_words", "max_run", "max_same_sentence"):
            check_at_least(1, {f"filters.repetition.{name}": getattr(self, name)})
        if not 0 <= self.max_share <= 1:
            raise ConfigError(f"filters.repetition.max_share={self.max_share}: it must be 0 to 1")


# A piece of one to six signs, at least four times.
_RUN = re.compile(r"(\S(?:.{0,4}?\S)??)\1{3,}")
_SENTENCE_END = re.compile(r"[.!?\n]+(?:\s|\Z)|[\u3002\uff01\uff1f]")


def find_repetition(speech: str, config: RepetitionConfig) -> str | None:
    """What is repeated too often, in words; None if nothing is.

    Args:
        speech: the caption without what signs in the picture say: ``outside_quotes``.
    """
    words = plain_words(speech)
    for size in range(1, config.max_loop_words + 1):
        loop = _find_loop(words, size, config.max_loops)
        if loop is not None:
            return f"{' '.join(loop)!r} more than {config.max_loops} times in a row"
    for match in _RUN.finditer(speech):
        if len(match.group(0)) > config.max_run:
            return f"{match[1]!r} {len(match.group(0)) // len(match[1])} times in a row"
    sentence, count = most_frequent_sentence(speech)
    if count > config.max_same_sentence:
        return f"{count} times the sentence {sentence[:60]!r}"
    share = repeated_share(words, config.ngram)
    if share > config.max_share:
        return f"{share:.2f} of the {config.ngram}-grams repeat an earlier one"
    return None


def repeated_share(words: list[str], ngram: int) -> float:
    """The share of n-grams that have occurred before in the same text, 0 to 1."""
    words = [word.lower() for word in words]
    counts = Counter(tuple(words[i : i + ngram]) for i in range(len(words) - ngram + 1))
    return 1 - len(counts) / counts.total() if counts else 0.0


def most_frequent_sentence(text: str) -> tuple[str, int]:
    """Of the sentences with at least four words: the one that occurs most often, and how often."""
    sentences = (sentence.split() for sentence in _SENTENCE_END.split(text.lower()))
    counts = Counter(" ".join(words) for words in sentences if len(words) >= 4)
    return counts.most_common(1)[0] if counts else ("", 0)


def _find_loop(words: list[str], size: int, max_loops: int) -> list[str] | None:
    """The first ``size`` words that stand more than ``max_loops`` times behind each other."""
    limit = max_loops * size
    if sum(map(eq, words[size:], words)) < limit:
        return None
    # Where a word equals the one `size` before it for long enough, the same words go round.
    breaks = [i for i in range(size, len(words)) if words[i] != words[i - size]]
    for before, after in pairwise([size - 1, *breaks, len(words)]):
        if after - before - 1 >= limit:
            start = before + 1 - size
            return words[start : start + size]
    return None
