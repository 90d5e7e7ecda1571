"""What the filters look at: the words of a caption, and what of it is the caption's own speech."""

import re
import unicodedata

# Scripts that put no space between words: there a character counts as a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
_ASCII_WORD = re.compile(r"\w+")
_PLAIN_WORD = re.compile(rf"[{_UNSPACED}]|(?:(?![{_UNSPACED}])\w)+")
#: What a sign, a screen or a book in the picture says; a quotation ends with its line.
_QUOTATION = re.compile(
    r'"[^"\n]{1,300}"|\u201c[^\u201d\n]{1,300}\u201d|\u00ab[^\u00bb\n]{1,300}\u00bb'
    r"|`[^`\n]{1,300}`"
    # Single quotes are apostrophes, too: a quotation starts behind a space and ends before none.
    r"|(?<![^\s(,:;\u2014-])(?:'|\u2018)(?=\S).{1,300}?(?<=\S)['\u2019](?!\w)"
)
_WRAPPERS = {'"': '"', "\u201c": "\u201d", "\u00ab": "\u00bb", "'": "'", "\u2018": "\u2019"}


def split_words(text: str) -> list[str]:
    """Words with the punctuation that touches them; a character each in Chinese, Thai and such."""
    return text.split() if text.isascii() else _WORD.findall(text)


def plain_words(text: str) -> list[str]:
    """Words without case, punctuation and the difference between forms of the same character."""
    if text.isascii():
        return _ASCII_WORD.findall(text.lower().replace("'", ""))
    text = unicodedata.normalize("NFKC", text).casefold()
    return _PLAIN_WORD.findall(text.replace("'", "").replace("\u2019", ""))


def outside_quotes(text: str) -> str:
    """The text with each quotation replaced by ``""``: what a sign says is not the model's."""
    return _QUOTATION.sub('""', text)


def unwrap(text: str) -> str:
    """The caption without quotation marks around the whole of it."""
    closing = _WRAPPERS.get(text[:1])
    if closing is None or len(text) < 2 or text[-1] != closing:
        return text
    inner = text[1:-1]
    return text if closing in inner or text[0] in inner else inner.strip()
