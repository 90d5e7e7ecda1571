"""What was put into the model and came out again: template tokens, roles, the prompt's words."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from recaption.common.config import check_at_least
from recaption.filters.words import plain_words


@dataclass
class LeakConfig:
    #: Words in a row that a caption may not share with the prompt; shorter sentences of the prompt
    #: count as a whole, from five words on.
    ngram: int = 8
    #: Further texts that stand for a leak wherever they occur, such as `<my_token>`.
    tokens: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_at_least(5, {"filters.leaks.ngram": self.ngram})


_MIN_SENTENCE = 5
# `</s>` is not among them: it parts sentences in caption files (see `split_sentences`).
_TOKEN = re.compile(
    r"<[|\uff5c][^<>\n]{1,40}[|\uff5c]>"  # <|im_end|>, <|vision_start|>, and DeepSeek's wide bars
    r"|<0x[0-9A-Fa-f]{2}>|<s>|<<SYS>>|\[/?(?:INST|IMG|SYSTEM_PROMPT|PAD|CLS|SEP|MASK|UNK)\]"
    r"|</?(?:image|img|video|pad|unk|bos|eos|think|box|ref|quad|tool_call|answer|reserved|grounding"
    r"|IMG_CONTEXT|start_of_(?:turn|image)|end_of_(?:turn|image|utterance)|image_soft_token"
    r"|fake_token_around_image|row_\d+_col_\d+)>"
    r"|\bIMG_CONTEXT\b|<extra_id_\d+>|<loc_?\d+>"
)
_ROLE = re.compile(
    r"(?:\A|\n|(?<=[.!?\"])\s)\s*(?:USER|ASSISTANT|SYSTEM|HUMAN|GPT|User|Assistant|System|Human)"
    r"\s*:(?=\s|\Z)"
    r"|(?<!\w)(?:Question|Q)\s?:[^\n]{1,200}\s(?:Answer|A)\s?:"
    r"|(?<!\w)(?:USER|ASSISTANT|HUMAN)\s?:"
    r"|###\s*(?:Instruction|Response|Input|Human|Assistant|User|System)\b"
    r"|\A(?:user|assistant|system|model)\s*\n"
)
_PLACEHOLDER = re.compile(r"\{[^{}]*\}")
_SENTENCE_END = re.compile(r"[.!?:\n]+(?:\s|\Z)|[\u3002\uff01\uff1f]")


class LeakFinder:
    """Knows the prompts of a run.

    Args:
        prompt_texts: prompts and system messages; ``{fields}`` in them, such as the alt text, are
            not the prompt's own words.
    """

    def __init__(self, config: LeakConfig, prompt_texts: Iterable[str] = ()) -> None:
        self._extra = tuple(config.tokens)
        self._ngrams: dict[int, set[tuple[str, ...]]] = {}
        for text in prompt_texts:
            for piece in _PLACEHOLDER.split(text):
                for sentence in _SENTENCE_END.split(piece):
                    self._add(plain_words(sentence), config.ngram)

    def find_token(self, speech: str) -> str | None:
        """The first template token or role; ``speech`` is the caption without quotations."""
        for token in self._extra:
            if token in speech:
                return token
        match = _TOKEN.search(speech) or _ROLE.search(speech)
        return match.group(0).strip() if match else None

    def find_prompt(self, caption: str) -> str | None:
        """The first words of the caption that are the prompt's; None if there are none."""
        if not self._ngrams:
            return None
        words = plain_words(caption)
        for size, ngrams in self._ngrams.items():
            for start in range(len(words) - size + 1):
                if tuple(words[start : start + size]) in ngrams:
                    return " ".join(words[start : start + size])
        return None

    def _add(self, words: list[str], ngram: int) -> None:
        size = min(ngram, len(words))
        if size >= _MIN_SENTENCE:
            self._ngrams.setdefault(size, set()).update(
                tuple(words[start : start + size]) for start in range(len(words) - size + 1)
            )
