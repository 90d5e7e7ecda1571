"""Captions as tokens, packed: one row for the whole batch, with offsets and no padding."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Self

import numpy as np
import torch
from open_clip.tokenizer import SimpleTokenizer, default_bpe
from torch import Tensor


@dataclass
class PackedTexts:
    """The captions of a batch, end to end."""

    tokens: Tensor  # (T,) int64; each caption is <start> ... <end>
    offsets: Tensor  # (B * K + 1,) int64; caption n is tokens[offsets[n] : offsets[n + 1]]
    num_texts_per_image: int  # K; the captions of image i are i * K ... i * K + K - 1

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        return type(self)(
            self.tokens.to(device, non_blocking=non_blocking),
            self.offsets.to(device, non_blocking=non_blocking),
            self.num_texts_per_image,
        )

    def split(self, number: int) -> list[Self]:
        """The texts of as many equal shares of the images, in their order."""
        if number == 1:
            return [self]
        num_texts = (len(self.offsets) - 1) // number
        shares = []
        for start in range(0, num_texts * number, num_texts):
            offsets = self.offsets[start : start + num_texts + 1]
            first, last = int(offsets[0]), int(offsets[-1])
            shares.append(
                type(self)(self.tokens[first:last], offsets - first, self.num_texts_per_image)
            )
        return shares

    def pin_memory(self) -> Self:
        """In page-locked memory, from which a GPU copies by itself; torch's loader calls this."""
        return type(self)(
            self.tokens.pin_memory(), self.offsets.pin_memory(), self.num_texts_per_image
        )


class Tokenizer:
    """CLIP's byte-pair encoding of lower-cased text (Radford et al. 2021), 49,408 tokens.

    Args:
        context_length: longest caption in tokens, start and end included.
        bpe_path: the merges; open_clip's copy of OpenAI's by default.
    """

    _BPE_NAME = "bpe_simple_vocab_16e6.txt.gz"
    #: Words whose tokens are remembered. Captions use few words over and over; of a billion of
    #: them the misspelt and the foreign would fill the memory.
    _MAX_KNOWN_WORDS = 100_000

    def __init__(self, context_length: int = 77, bpe_path: Path | str | None = None) -> None:
        self._bpe_path = Path(bpe_path or default_bpe())
        self._bpe = SimpleTokenizer(str(self._bpe_path))
        self.context_length = context_length
        self._known_words: dict[str, list[int]] = {}
        self._special_words = dict(self._bpe.cache)

    @property
    def path(self) -> Path:
        """The file of the merges."""
        return self._bpe_path

    @property
    def vocab_size(self) -> int:
        return self._bpe.vocab_size

    def encode(self, text: str) -> list[int]:
        """``<start> ... <end>``, cut to the context length with the end token kept."""
        return self.cut(self.encode_whole(text))

    def is_cut(self, text: str) -> bool:
        """Whether ``text`` is longer than the context."""
        return len(self.encode_whole(text)) > self.context_length

    def pack(self, texts: Sequence[Sequence[str]]) -> PackedTexts:
        """Packs the captions of each image; every image must have the same number of them."""
        num_texts_per_image = len(texts[0])
        assert all(len(image_texts) == num_texts_per_image for image_texts in texts)
        return pack_tokens(
            [self.encode(text) for image_texts in texts for text in image_texts],
            num_texts_per_image,
        )

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self._bpe_path, folder / self._BPE_NAME)

    @classmethod
    def load(cls, folder: Path, context_length: int) -> Self:
        return cls(context_length, folder / cls._BPE_NAME)

    def encode_whole(self, text: str) -> list[int]:
        """``<start> ... <end>``, however long; what `SimpleTokenizer.encode` gives, but faster."""
        # What the cleaning mends (wrong encodings, entities, control characters) plain text lacks.
        is_plain = text.isascii() and text.isprintable() and "&" not in text
        cleaned = text.lower() if is_plain else self._bpe.clean_fn(text)
        tokens = [self._bpe.sot_token_id]
        known = self._known_words
        for word in cleaned.split():  # no token reaches over white space
            tokens += known.get(word) or self._encode_word(word)
        tokens.append(self._bpe.eot_token_id)
        return tokens

    def _encode_word(self, word: str) -> list[int]:
        """Tokens of what stands between white space, punctuation included."""
        if len(self._known_words) >= self._MAX_KNOWN_WORDS:
            self._known_words.clear()
            self._bpe.cache = dict(self._special_words)
        tokens: list[int] = []
        for piece in self._bpe.pat.findall(word):
            letters = "".join(self._bpe.byte_encoder[byte] for byte in piece.encode("utf-8"))
            tokens += [self._bpe.encoder[part] for part in self._bpe.bpe(letters).split(" ")]
        self._known_words[word] = tokens
        return tokens

    def cut(self, tokens: list[int]) -> list[int]:
        """Tokens of a text, cut to the context length with the end token kept."""
        if len(tokens) <= self.context_length:
            return tokens
        return [*tokens[: self.context_length - 1], self._bpe.eot_token_id]


def pack_tokens(captions: Sequence[Sequence[int]], num_texts_per_image: int) -> PackedTexts:
    """Lays captions, each a sequence of token ids, end to end."""
    offsets = np.zeros(len(captions) + 1, np.int64)
    np.cumsum([len(caption) for caption in captions], out=offsets[1:])
    tokens = np.fromiter(chain.from_iterable(captions), np.int64, count=offsets[-1])
    return PackedTexts(torch.from_numpy(tokens), torch.from_numpy(offsets), num_texts_per_image)
