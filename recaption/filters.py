"""Which captions are not worth training on, and why."""

import unicodedata
from collections import Counter
from dataclasses import dataclass

from recaption.common.config import check_at_least

#: Of these Unicode categories only line breaks and tabs belong in a text.
CONTROL_CATEGORIES = ("Cc", "Cs", "Co", "Cn")


@dataclass
class FilterConfig:
    #: Captions with fewer words are rejected.
    min_words: int = 3
    #: Whether to keep captions that hit the token limit, which end in mid-sentence.
    keep_cut_off: bool = False
    #: Words in the sequences that are looked at for repetition.
    ngram: int = 4
    #: Largest share of a caption's n-grams that repeat an earlier one. A loop comes near 1.
    max_repeated: float = 0.5
    #: Most control and replacement characters in a caption.
    max_control_characters: int = 0

    def __post_init__(self) -> None:
        check_at_least(1, {"filters.ngram": self.ngram})


def reject_reason(caption: str, finish_reason: str | None, config: FilterConfig) -> str | None:
    """``code: detail`` of the first filter that rejects the caption, or None if it is fit."""
    words = caption.split()
    if not words:
        return "empty: no words"
    if len(words) < config.min_words:
        return f"too-short: {len(words)} words"
    if finish_reason == "length" and not config.keep_cut_off:
        return "cut-off: hit the token limit"
    num_control = sum(_is_control(character) for character in caption)
    if num_control > config.max_control_characters:
        return f"control-characters: {num_control}"
    share = repeated_share(words, config.ngram)
    if share > config.max_repeated:
        return f"repetition: {share:.2f} of the {config.ngram}-grams repeat an earlier one"
    return None


def repeated_share(words: list[str], ngram: int) -> float:
    """The share of n-grams that have occurred before in the same text, 0 to 1."""
    words = [word.lower() for word in words]
    counts = Counter(tuple(words[i : i + ngram]) for i in range(len(words) - ngram + 1))
    return 1 - len(counts) / counts.total() if counts else 0.0


def _is_control(character: str) -> bool:
    if character in "\n\t":
        return False
    return character == "\ufffd" or unicodedata.category(character) in CONTROL_CATEGORIES
