"""Answers in which a model tells what it cannot or will not do, in place of a description."""

import re

_IMAGE = r"(?:image|picture|photo|photograph|file|attachment|visual|video|link)s?"
_CANNOT = (
    r"(?:can(?:'t|\s?not)|couldn't|could\s+not|won't|will\s+not|am\s+(?:not\s+able|unable)\s+to"
    r"|'m\s+(?:not\s+able|unable)\s+to|am\s+not\s+(?:capable|comfortable|allowed|programmed)"
    r"|'m\s+not\s+(?:capable|comfortable|allowed|programmed)"
    r"|do(?:n't|\s+not)\s+(?:have\s+the\s+(?:ability|capability)|feel\s+comfortable)"
    r"|must\s+decline|have\s+to\s+decline)"
)
# `I cannot see his feet` is a description; a person who looks at a picture says so.
_TASK = (
    r"(?:assist|help|provid|fulfil|compl[iy]|generat|creat|process|access|analy[sz]|descri[bp]"
    r"|identif|recogni[sz]|determin|answer|engag|discuss|continu|respond|interpret|offer|disclos"
    r"|shar|support|produc|writ|caption|comment|confirm)\w*"
)
_PATTERNS = [
    rf"\bi\s*{_CANNOT}\s+(?:\w+\s+){{0,3}}?{_TASK}",
    rf"\bi\s*{_CANNOT}\s+(?:\w+\s+){{0,2}}?(?:see|view|open|load|read|look\s+at|display)\s+"
    rf"(?:\w+\s+){{0,3}}?{_IMAGE}\b",
    r"\bi(?:'m|\s+am)?\s*(?:must|have\s+to)?\s*decline\b",
    r"\bas\s+an?\s+(?:\w+[\s-]+){0,3}?(?:ai|language\s+model|artificial\s+intelligence|chatbot)\b",
    r"\bi(?:'m|\s+am)\s+(?:\w+\s+){0,2}?(?:an?|only|just)\s+(?:\w+[\s-]+){0,3}?"
    r"(?:ai|language\s+model|artificial\s+intelligence|chatbot)\b",
    rf"\bno\s+{_IMAGE}\s+(?:was|were|is|has\s+been|have\s+been|seems?\s+to\s+be|appears?\s+to\s+be)"
    r"\s+(?:\w+\s+)?(?:provided|attached|uploaded|shared|included|visible|available|given)",
    rf"\b(?:there\s+is|there's|i\s+(?:do\s+not|don't)\s+(?:see|have))\s+(?:no|any|an)\s+{_IMAGE}\b"
    r"\s*(?:[.,!]|\Z|to\b|in\b|attached|provided|uploaded|here)",
    rf"\b(?:please|could\s+you|can\s+you|kindly)\s+(?:\w+\s+){{0,2}}?"
    rf"(?:provide|upload|share|attach|send|re-?upload|try)\b[^.?!\n]{{0,60}}\b{_IMAGE}\b",
    rf"\b(?:the|your)\s+{_IMAGE}\b[^.?!\n]{{0,40}}\b(?:did\s+not|didn't|failed\s+to|could\s+not"
    r"|couldn't|cannot|can't|does\s+not|doesn't)\s+(?:\w+\s+)?(?:be\s+)?"
    r"(?:load|upload|display|open|attach|process|access|come\s+through)(?:ed)?\b",
    r"\b(?:violates?|against)\s+(?:\w+\s+){0,3}?(?:guidelines|polic(?:y|ies)|terms\s+of)",
    rf"\b(?:unable|not\s+possible|impossible)\s+(?:for\s+me\s+)?to\s+(?:\w+\s+)?{_TASK}\s+"
    rf"(?:\w+\s+){{0,5}}?{_IMAGE}\b",
    r"(?:sorry|apologi[sz]e|apologies|unfortunately)\b[^.?!\n]{0,40}"
    r"\bi\s*(?:can't|cannot|can\s+not|am\s+unable|'m\s+unable|am\s+not\s+able|'m\s+not\s+able)\b",
]
_REFUSAL = re.compile("|".join(_PATTERNS), re.IGNORECASE)
# Some of these stand in every refusal; to look for them costs a tenth of a search for all of it.
_HINTS = (
    *(
        "i can",
        "i could",
        "i won",
        "i will",
        "i am",
        "i'm",
        "i do",
        "i must",
        "i have",
        "i decline",
    ),
    *("as an ", "as a ", "please", "you", "violat", "against", "unable", "possible", "sorry"),
    *("apolog", "unfortunat", "no image", "no pic", "no photo", "no file", "no attach", "no v"),
    *("there is", "there's", "failed", "not ", "n't "),
)


def find_refusal(speech: str) -> str | None:
    """The words of a refusal in what the model itself says; None if there are none.

    Args:
        speech: the caption without what signs in the picture say: ``outside_quotes``.
    """
    speech = " ".join(speech.replace("\u2019", "'").split())
    lowered = speech.lower()
    if not any(hint in lowered for hint in _HINTS):
        return None
    match = _REFUSAL.search(speech)
    return match.group(0) if match else None
