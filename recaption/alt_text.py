"""Alt texts as a prompt may hold them: one line of words, with nothing that a model obeys.

An alt text is whatever a page says about a picture. It goes into prompts as data, so what a chat
template or a tokenizer would take for structure is removed first; a text that gives orders to a
model is no description, and nothing of it is used.
"""

import html
import re
import unicodedata
from collections.abc import Collection

#: Words that an alt text may have in a prompt.
MAX_WORDS = 80
#: Languages without spaces have words of any length: so many characters are a word, on average.
CHARACTERS_A_WORD = 12
#: Longer words are addresses and codes, for which a tokenizer needs a token for every two letters.
MAX_WORD_CHARACTERS = 60

#: `<|im_start|>`, `<image>`, `</s>`, `<start_of_turn>`, and tags of HTML.
_TAG = re.compile(r"<<[^<>]{1,64}>>|<[^<>\s]{1,64}>|<[^<>\s\d][^<>]{0,200}>")
#: `[INST]`, `[/INST]`, `[IMG_BREAK]`.
_MARK = re.compile(r"\[/?[A-Z][A-Z_]{2,}\]")
#: `USER:`, `### Assistant:`, also with a wide colon: the colon makes a word a role, so it goes.
_ROLE = re.compile(
    r"(?i)(?<!\w)(system|user|assistant|human|gpt|model|instruction|input|response)\s*[:\uff1a]"
)
_HEADING = re.compile(r"#{2,}|`{3,}|-{3,}|={3,}|\*{3,}")
#: What tokens are made of, so that none can come together again; `\uff5c` is a wide `|`.
_STRUCTURE = str.maketrans({"<": " ", ">": " ", "|": " ", "\uff5c": " ", '"': "'"})
_ORDER = re.compile(
    r"(?i)\b(ignore|disregard|forget|override|bypass)\b[^.!?]{0,60}?"
    r"\b(instructions?|prompts?|rules|guidelines|directions|messages?|context)\b"
    r"|\byou are now\b|\b(reveal|print|repeat)\b[^.!?]{0,30}?\b(system prompt|instructions)\b"
    r"|\bnew instructions?\s*:"
)


def clean_alt_text(
    text: str | None, max_words: int = MAX_WORDS, special_tokens: Collection[str] = ()
) -> str:
    """One line without control marks, markup and template tokens, of at most ``max_words`` words.

    Args:
        text: as the shard has it; None where it has none.
        max_words: later words are left out; characters are bounded, too.
        special_tokens: further texts that the model's tokenizer takes for structure
            (``tokenizer.all_special_tokens``); what has the form of one goes without being named.

    Returns:
        An empty text where nothing is left, or where the text gives orders (``gives_orders``).
        There is no ``<``, ``>``, ``|`` or ``"`` in it, so that it can stand between quotes.
    """
    line = _one_line(text or "")
    if gives_orders(line):
        return ""
    line = _without_tokens(line, special_tokens)
    words = [
        word for word in line.split() if len(word) <= MAX_WORD_CHARACTERS or not _is_code(word)
    ]
    line = " ".join(words[:max_words])[: CHARACTERS_A_WORD * max_words]
    return _without_tokens(line, special_tokens)


def gives_orders(text: str) -> bool:
    """Whether a text speaks to a model (``Ignore all previous instructions``).

    A list of phrases finds the common ones only. What holds in any case is that the prompt puts the
    text between quotes, and that nothing in it ends them.
    """
    return _ORDER.search(_one_line(text)) is not None


def _one_line(text: str) -> str:
    text = html.unescape(html.unescape(text))  # escaped twice is common
    # Format marks (Cf) turn the direction of writing, or hide letters and pieces of tokens.
    kept = (
        " " if character.isspace() else character
        for character in unicodedata.normalize("NFC", text)
        if character.isspace() or not _is_invisible(character)
    )
    return " ".join("".join(kept).split())


def _without_tokens(text: str, special_tokens: Collection[str]) -> str:
    """What is taken out may bring the ends of another token together: until nothing changes."""
    before = None
    while before != text:
        before = text
        text = _MARK.sub(" ", _TAG.sub(" ", text))
        for token in special_tokens:
            if token.strip():
                text = text.replace(token, " ")
        text = _HEADING.sub(" ", _ROLE.sub(r"\1 ", text))
        text = " ".join(text.translate(_STRUCTURE).split())
    return text


def _is_invisible(character: str) -> bool:
    return character == "\ufffd" or unicodedata.category(character)[0] == "C"


def _is_code(word: str) -> bool:
    """Whether a long word is an address or a code; a language without spaces is letters."""
    return word.isascii()
