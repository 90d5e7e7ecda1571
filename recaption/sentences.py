"""Captions into sentences, with no word lost."""

import re

_CLOSING = "\"')\\]\u2019\u201d"
_OPENING = "\"'(\\[\u2018\u201c"
_FULL_WIDTH = "\u3002\uff01\uff1f"  # Chinese and Japanese
#: What a finished sentence may end with.
END_MARKS = f".!?\u2026{_FULL_WIDTH}{_CLOSING}"


def _words(*groups: str) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(word) for group in groups for word in group.split()), re.I)


# Never the end of a sentence: a name follows, or what they stand for goes on.
_TITLE = _words(
    "mr mrs ms dr prof mt gen col sgt capt lt maj rev hon gov sen messrs mme",
    "fig figs vs e.g i.e approx ca cf viz",
)
# Only before a number: `No. 5`, but not `The sign says no. A man`.
_NUMBERED = _words("no nos nr vol pp pg apt hwy rte")
# The end of a sentence only before a capital: `balls, boxes, etc. A dog`; `12 in. wide`.
_UNIT = _words("etc in ft lb lbs oz min max sec deg hr hrs yd yds mi cm mm km kg cu tbsp tsp")
# Parts of names, so that a capital behind them says little: `Ford Motor Co. Trucks`.
_IN_NAME = _words(
    "inc ltd co corp bros jr sr dept univ assn intl sta mfg",
    "st ave av rd blvd pkwy ln ct pl sq dr",
    "jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thur thurs fri sat sun",
)
# `U.S`, `a.m`, `D.C`, `a. m`
_DOTTED = re.compile(r"(?:[A-Za-z]\.)+[A-Za-z]")
_SPACED = re.compile(r"(?:^|(?<=[\s(\d]))(?:[ap]\.\s?m|i\.\s?e|e\.\s?g|U\.\s?[SK])", re.IGNORECASE)
_QUOTED_NUMBER = re.compile(rf"[{_OPENING}]\d{{1,3}}$")
_PRICE = re.compile(r".*[$\u00a3\u20ac]\d+")
# With these a sentence begins, and no name goes on.
_STARTERS = frozenset(
    re.findall(
        r"\w+",
        """
        a above across after all along also although an and another around as at atop attached
        because behind below beneath beside besides between beyond both bright but by cars clear
        dark daytime despite directly due during each everyone everything few finally for from
        further he her here his how however i if in inside instead is it its just large many
        meanwhile most multiple near nearby neither next no nothing now of on one only other
        others our out outside over overall overcast overhead pedestrians people several she since
        small so some someone something that the their then there these they this those though
        three through throughout to together toward towards trees two under underneath various
        vehicles very we what when where which while with within without you your
        """,
    )
)
# An end mark with what closes behind it, before white space; a full stop glued between two words
# (`sky.The`); a full-width one.
_CANDIDATE = re.compile(
    rf"(?<![.!?\u2026])(?P<mark>[.!?\u2026]++)(?P<closing>[{_CLOSING}]*+)(?=\s)"
    rf"|(?<=[a-z])\.(?=[A-Z][a-z])|[{_FULL_WIDTH}]+"
)
_BREAK = re.compile(r"</s>|\n")
_INITIAL = re.compile(r"[A-Za-z]\.")
_NEXT = re.compile(rf"\s*+[{_OPENING}]*+(.{{0,24}})")
_FIRST_WORD = re.compile(r"[A-Za-z']+")
_LIST_NUMBER = re.compile(rf"(?:^|(?<=[\s{_OPENING}]))(\d{{1,2}})$")
#: Characters before a mark that are looked at; no longer word decides.
_REACH = 80


def split_sentences(text: str) -> list[str]:
    """Splits at ends of sentences, line breaks, ``</s>`` and before the numbers of a list.

    Decimals, abbreviations, initials, streets and saints do not end a sentence. The sentences,
    joined, are the text again, up to white space and ``</s>``.
    """
    sentences: list[str] = []
    for line in _BREAK.split(text):
        start, list_number = 0, 1
        for match in _CANDIDATE.finditer(line):
            tail = line[max(start, match.start() - _REACH) : match.start()]
            is_begin = not line[start : match.start() - len(tail)]
            after = _NEXT.match(line, match.end())
            assert after is not None
            number = _LIST_NUMBER.search(tail) if match[0] == "." else None
            if number and int(number[1]) == list_number and _goes_on(list_number, tail, number):
                item = match.start() - len(number[1])
                if list_number > 1 and not line[item - 1 : item].strip():  # not `reads "2. ...`
                    sentences.append(line[start:item])
                    start = item
                list_number += 1
            elif _ends_sentence(tail, is_begin, match, after[1]):
                sentences.append(line[start : match.end()])
                start = match.end()
        sentences.append(line[start:])
    return _attach_fragments([" ".join(sentence.split()) for sentence in sentences])


def _goes_on(list_number: int, tail: str, number: re.Match[str]) -> bool:
    """Whether a number is that of a list's item: the first stands alone or behind a colon."""
    before = tail[: number.start(1)].rstrip()
    return list_number > 1 or not before or before[-1] in f":;,-{_OPENING}"


def _ends_sentence(before: str, is_begin: bool, match: re.Match[str], after: str) -> bool:
    """Whether a mark ends a sentence.

    Args:
        before: the end of the sentence up to the mark.
        is_begin: whether ``before`` is the sentence from its beginning.
        after: what follows the mark, without white space and opening quotes.
    """
    mark = match["mark"]
    if mark is None:
        return True
    starts_upper = not after[:1].islower()
    if after[:1] in ("/", ",", ";", "&") or (match["closing"] and not starts_upper):
        return False  # `reads "STOP." in red`, `"FIRE DEPT. / ACCESS"`
    if mark != ".":
        return starts_upper or not mark.startswith(("..", "\u2026"))
    word = _last_word(before)
    if not word or match["closing"]:
        return True
    return _ends_at_full_stop(before[: len(before) - len(word)], is_begin, word, after)


def _ends_at_full_stop(before: str, is_begin: bool, word: str, after: str) -> bool:
    token = word.lstrip(_OPENING)
    next_word = _FIRST_WORD.match(after)
    starts_upper = not after[:1].islower()
    starts_anew = starts_upper and next_word is not None and next_word[0].lower() in _STARTERS
    previous = _last_word(before.rstrip()).lstrip(_OPENING)
    is_in_name = previous[:1].isupper() or previous[:1].isdigit()
    is_quoted = len(token) < len(word)
    if _QUOTED_NUMBER.search(word) or (token.isdigit() and is_begin and not before.strip()):
        return False  # `reads "5. NO PARKING"`, `2. A cat`
    if _PRICE.fullmatch(token):
        return not after[:2].isdigit()
    if _NUMBERED.fullmatch(token):
        return not after[:1].isdigit()
    if token in ("St", "ST", "Dr", "DR"):
        return is_in_name and starts_anew  # a street, unless it is a saint or a doctor
    if _TITLE.fullmatch(token):
        return False
    if token[:1].isupper() and _IN_NAME.fullmatch(token):
        return starts_anew
    if _UNIT.fullmatch(token) and (token != "in" or previous[-1:].isdigit()):
        return starts_upper
    if _DOTTED.fullmatch(token) or _is_spaced(previous, token):
        return starts_anew
    if len(token) == 1 and _INITIAL.match(after):
        return False  # `J. K. Rowling`, `9 a. m.`
    if len(token) == 1 and token.isupper() and token != "I":
        # `John F. Smith`, `reads "M. Vintage"`, but not `the letter A. It is`.
        is_in_name = not previous or previous[0].isupper() or is_quoted
        return starts_anew or not is_in_name
    return True


def _is_spaced(previous: str, token: str) -> bool:
    """``p. m``, ``i. e``: the halves of an abbreviation."""
    return _SPACED.fullmatch(f"{previous}{token}") is not None


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
