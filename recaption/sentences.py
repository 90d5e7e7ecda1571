"""Captions into sentences, with no word lost."""

import re

_CLOSING = "\"')\\]\u2019\u201d"
_OPENING = "\"'(\\[\u2018\u201c"
_FULL_WIDTH = "\u3002\uff01\uff1f"  # Chinese and Japanese
#: What a finished sentence may end with.
END_MARKS = f".!?{_FULL_WIDTH}{_CLOSING}"

# Never the end of a sentence.
_TITLE = re.compile(
    r"mr|mrs|ms|dr|prof|st|mt|fig|no|vs|e\.g|i\.e|approx|ca|cf|jr|sr|gen|col", re.IGNORECASE
)
# The end of a sentence only before a capital: `12 in. wide`, `balls, boxes, etc. A dog`.
_UNIT = re.compile(
    r"etc|in|ft|lbs?|oz|inc|ltd|co|a\.m|p\.m|min|max|sec|deg|u\.s|u\.k", re.IGNORECASE
)
# An end mark with what closes behind it, before white space; a full stop glued between two words
# (`sky.The`); a full-width one.
_CANDIDATE = re.compile(
    rf"(?<![.!?])(?P<mark>[.!?]++)(?P<closing>[{_CLOSING}]*+)(?=\s)"
    rf"|(?<=[a-z])\.(?=[A-Z][a-z])|[{_FULL_WIDTH}]+"
)
_BREAK = re.compile(r"</s>|\n")
_INITIAL = re.compile(r"[A-Z]\.")
_NEXT = re.compile(r"\s*+(.{0,2})")


def split_sentences(text: str) -> list[str]:
    """Splits at ends of sentences, line breaks and ``</s>``.

    Decimals, common abbreviations, initials and the numbers of a list do not end a sentence. The
    sentences, joined, are the text again, up to white space and ``</s>``.
    """
    sentences: list[str] = []
    for line in _BREAK.split(text):
        start = 0
        for match in _CANDIDATE.finditer(line):
            after = _NEXT.match(line, match.end())
            assert after is not None
            if _ends_sentence(line[start : match.start()], match, after[1]):
                sentences.append(line[start : match.end()])
                start = match.end()
        sentences.append(line[start:])
    return _attach_fragments([" ".join(sentence.split()) for sentence in sentences])


def _ends_sentence(before: str, match: re.Match[str], after: str) -> bool:
    """``before``: the sentence up to the mark; ``after``: the next two characters behind it."""
    mark = match["mark"]
    if mark is None:
        return True
    starts_upper = not after[:1].islower()
    if mark != ".":
        return starts_upper or not mark.startswith("..")
    word = _last_word(before)
    if not word or match["closing"]:
        return True
    token = word.lstrip(_OPENING)
    if before.strip().rstrip(".").isdigit() or _TITLE.fullmatch(token):
        return False
    if _UNIT.fullmatch(token):
        return starts_upper
    if len(token) == 1 and token.isupper() and token != "I":
        # `J. Smith`, `by J. K. Smith`, `John F. Smith`, but not `the letter A. It is`.
        previous = _last_word(before[: len(before) - len(word)].rstrip())
        is_inside_name = not previous or previous[0].isupper()
        return not is_inside_name and _INITIAL.match(after) is None
    return True


def _last_word(text: str) -> str:
    """What stands behind the last white space; nothing where the text ends in white space."""
    return "" if text[-1:].isspace() else (text.rsplit(maxsplit=1) or [""])[-1]


def _attach_fragments(sentences: list[str]) -> list[str]:
    """A piece without any letter or digit is no sentence; it stays with the one before it."""
    whole: list[str] = []
    for sentence in sentences:
        if any(character.isalnum() for character in sentence) or not whole:
            if sentence:
                whole.append(sentence)
        elif sentence:
            whole[-1] = f"{whole[-1]} {sentence}"
    return whole
