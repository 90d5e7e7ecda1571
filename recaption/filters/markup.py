"""What belongs to a web page or a chat window and not into a sentence."""

import re

_BOLD = re.compile(r"(\*\*|__)(?=\S)([^*_\n]+?)(?<=\S)\1")
_ITALIC = re.compile(r"(?<![\w*])\*(?=[^\s*])([^*\n]+?)(?<=[^\s*])\*(?![\w*])")
_LINE_MARK = re.compile(r"^[ \t]*(?:#{1,6}[ \t]+|[-*\u2022][ \t]+|>[ \t]+)", re.MULTILINE)
_RULE = re.compile(r"^[ \t]*(?:-{3,}|\*{3,}|_{3,}|={3,})[ \t]*$\n?", re.MULTILINE)

_CODE_FENCE = re.compile(r"```")
_LINK = re.compile(r"!?\[[^\]\n]*\]\([^)\n]*\)?")
_TAG = re.compile(
    r"</?(?:a|b|i|u|p|br|hr|em|strong|span|div|html|body|head|title|script|style|table|tr|td|th|ul"
    r"|ol|li|h[1-6]|img|iframe|input|button|form|font|center|code|pre|figure|figcaption|section)"
    r"(?:\s[^<>\n]*)?/?>",
    re.IGNORECASE,
)
_ENTITY = re.compile(r"&(?:nbsp|amp|lt|gt|quot|#\d{2,5}|#x[0-9a-f]{2,4});", re.IGNORECASE)
_URL = re.compile(r"(?:https?|ftp)://\S+", re.IGNORECASE)


def strip_markdown(text: str) -> str:
    """The words of headings, bullets, bold and italics, without their marks."""
    if not any(mark in text for mark in "*_#>\u2022-="):
        return text
    text = _LINE_MARK.sub("", _RULE.sub("", text))
    return _ITALIC.sub(r"\1", _BOLD.sub(r"\2", text))


def find_markup(speech: str, max_tags: int, max_urls: int) -> str | None:
    """HTML, links, code or web addresses outside quotations; None if there are too few of them.

    A picture may show a page's source or an address: one tag can be what a screen says.
    """
    for pattern in (_CODE_FENCE, _LINK):
        match = pattern.search(speech)
        if match:
            return match.group(0)
    tags = [match.group(0) for match in _TAG.finditer(speech)] + _ENTITY.findall(speech)
    if len(tags) > max_tags:
        return f"{len(tags)} HTML tags, the first {tags[0]}"
    urls = _URL.findall(speech)
    if len(urls) > max_urls:
        return f"{len(urls)} web addresses, the first {urls[0][:60]}"
    return None
