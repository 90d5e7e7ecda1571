"""Takes off what models say before they say what they see: ``The image shows a dog.``

Such words are the same in every caption, so a text encoder learns nothing from them, and they take
the place of words that say something. What tells the medium or the view stays: ``A black-and-white
photograph of``, ``A close-up of``.
"""

import re

from recaption.filters.words import split_words

_PICTURE = r"(?:image|picture|photo(?:graph)?|snapshot)"
_ADJECTIVE = r"(?:(?:provided|given|attached|above|uploaded|input|presented|displayed)\s+)?"
_THIS_PICTURE = rf"(?:the|this)\s+{_ADJECTIVE}(?:{_PICTURE}|scene)(?:\s+(?:provided|above))?"
_SHOWS = (
    r"(?:shows?|depicts?|captures?|features?|displays?|portrays?|presents?|showcases?|illustrates?"
    r"|contains?|includes?|represents?|pictures|reveals?|consists\s+of"
    r"|is\s+(?:showing|depicting|capturing|displaying|featuring))"
)
_SHOWING = r"(?:of|showing|depicting|capturing|featuring|displaying)"
_SEE = r"(?:(?:we|you|one|i)\s+can\s+(?:also\s+)?(?:clearly\s+)?(?:see|observe)|(?:we|i)\s+see)"
_ADVERB = r"(?:(?:also|clearly|prominently|vividly|primarily|mainly|simply)\s+)?"
# What would be left is no sentence: `The image shows how a dog jumps`, `... captures in detail`.
_SUBJECT = (
    r"(?!(?:as|at|by|for|from|how|if|in|into|is|it|its|on|only|to|us|was|when|where|whether|which"
    r"|who|whose|why|with|and|or|but)\b)(?=[\w\"'(\u201c\u2018])"
)
_CHAT_STARTS = [
    # Sure! Here is a detailed description of the image:
    r"(?:sure|certainly|of\s+course|absolutely|okay|ok)\s*[!,.]+\s*",
    r"(?:here(?:'s|\s+is)|below\s+is|the\s+following\s+is)\s+(?:an?|the|my|your)\s+"
    r"[^.:!?\n]{0,60}?(?:caption|description|summary)\b[^.:!?\n]{0,60}[:.\n]\s*",
    r"(?:(?:detailed|image|short|long|brief|final)\s+){0,2}(?:caption|description|answer|response)"
    r"\s*:\s*",
]
_SENTENCE_STARTS = [
    # The image shows that ...
    rf"{_THIS_PICTURE}\s+{_ADVERB}{_SHOWS}\s*:?\s+(?:that\s+)?{_ADVERB}{_SUBJECT}",
    # The image is of ..., The image is a collage of ...
    rf"(?:the|this)\s+{_ADJECTIVE}{_PICTURE}\s+is\s+(?:of\s+{_SUBJECT}|(?=an?\s))",
    # This is an image of ..., A photo of ...
    rf"(?:this\s+is\s+)?(?:an?|the)\s+{_PICTURE}\s+(?:{_SHOWING}|that\s+{_SHOWS})\s+{_SUBJECT}",
    # In this image, we can see that ..., In the photo a dog ...
    rf"in\s+{_THIS_PICTURE}\s*,?\s*{_SEE}\s+(?:that\s+)?{_SUBJECT}",
    rf"in\s+{_THIS_PICTURE}(?:\s*,|(?=\s+there\b))\s*{_SUBJECT}",
    rf"{_SEE}\s+(?:that\s+)?{_SUBJECT}",
]
_CHAT = re.compile("|".join(_CHAT_STARTS), re.IGNORECASE)
_OPENING = re.compile("|".join(_SENTENCE_STARTS), re.IGNORECASE)
_OPENING_ALONE = re.compile(
    rf"(?:(?:{_THIS_PICTURE}|(?:this\s+is\s+)?an?\s+{_PICTURE})(?:\s+{_SHOWS}|\s+(?:is\s+)?of)?"
    rf"|in\s+{_THIS_PICTURE}\s*,?(?:\s*{_SEE})?|{_SEE})\s*[.:,]*",
    re.IGNORECASE,
)
_OFFER = re.compile(
    r"(?<![^\s])(?:(?:please\s+)?(?:let\s+me\s+know\s+(?:if|whether|what)|feel\s+free\s+to)"
    r"|is\s+there\s+anything\s+else|(?:would\s+you\s+like|do\s+you\s+want)\s+me\s+to"
    r"|i\s+hope\s+(?:this|that)\s+(?:helps|description)"
    r"|if\s+you\s+(?:have|need|would\s+like|want)\s+(?:any|more|further|additional)\b)"
    r"[^\n]*\s*\Z",
    re.IGNORECASE,
)
_FIRST_WORD = re.compile(r"[\"'(\u201c\u2018]*(\w+)")


def strip_openings(text: str, min_words: int = 1) -> str:
    """The caption without its opening phrases, again a sentence that starts with a capital.

    Several in a row go: ``Sure! Here is a caption: The image shows a brown dog.`` -> ``A brown
    dog.`` Nothing is left of a caption that is an opening alone. Where fewer than ``min_words``
    would be left, the sentence keeps its opening: ``A picture of blocks.``
    """
    rest = text
    while match := _CHAT.match(rest):
        rest = rest[match.end() :].lstrip()
    if _OPENING_ALONE.fullmatch(rest):
        return ""
    while match := _OPENING.match(rest):
        shorter = rest[match.end() :].lstrip()
        if len(split_words(shorter)) < min_words:
            break
        rest = shorter
    return text if rest == text else _capitalise(rest)


def strip_offer(text: str) -> str:
    """The caption without an offer to the reader at its end: ``Let me know if you need more!``"""
    match = _OFFER.search(text)
    if match is None:
        return text
    before = text[: match.start()].rstrip()
    return before if not before or before[-1] in ".!?:\"')" else text


def _capitalise(text: str) -> str:
    """A word with capitals further on, as ``iPhone``, is left as it is."""
    word = _FIRST_WORD.match(text)
    if word is None or not word[1].islower():
        return text
    return text[: word.start(1)] + text[word.start(1)].upper() + text[word.start(1) + 1 :]
