"""Characters that do not belong in a text, and texts that do not consist of words."""

import re
import unicodedata

from recaption.filters.words import split_words

#: Of these Unicode categories only line breaks and tabs belong in a text.
CONTROL_CATEGORIES = ("Cc", "Cs", "Co", "Cn")
_PRINTABLE_ASCII = re.compile(r"[\n\t\x20-\x7e]*")
_PUNCTUATION = "\"'`.,;:!?()[]{}*_\u2018\u2019\u201c\u201d\u00ab\u00bb\u2026\u2013\u2014-"
# A word of letters, with what stands inside of words; or a number, with its units and signs.
_WORD = re.compile(
    r"(?:[^\W\d_]|[\u0300-\u036f])+(?:['\u2019\u2010\u2011/&.,+@-]+[\w]+)*['\u2019]?"
    r"|[#$\u00a3\u20ac\u00a5+~-]?\d[\w.,:/'\u2019\u00d7\u00b0%+-]*"
)
_MAX_LETTERS = 40


def count_control_characters(text: str) -> int:
    """Characters that no text has, such as NUL or the one that stands for a broken character."""
    if _PRINTABLE_ASCII.fullmatch(text):
        return 0
    return sum(_is_control(character) for character in text)


def non_word_share(speech: str) -> float:
    """The share of white-space separated pieces that are no words or numbers, 0 to 1.

    A piece of punctuation alone, as a dash between words or a list's bullet, does not count.
    """
    pieces = [piece for word in split_words(speech) if (piece := word.strip(_PUNCTUATION))]
    if not pieces:
        return 1.0 if speech.strip() else 0.0
    return sum(not _is_word(piece) for piece in pieces) / len(pieces)


def _is_word(piece: str) -> bool:
    return len(piece) <= _MAX_LETTERS and _WORD.fullmatch(piece) is not None


def _is_control(character: str) -> bool:
    if character in "\n\t":
        return False
    return character == "\ufffd" or unicodedata.category(character) in CONTROL_CATEGORIES
