"""Captions and pictures as callers of a model give them: checked, and what is not read is told."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from pretrain.data.captions import CaptionsConfig, texts_of_caption
from pretrain.data.tokens import Tokenizer
from recaption.common.config import UserError
from recaption.images import to_upright_rgb

_CUT = "longer than the"


def listed(items: Image.Image | Path | str | Sequence[Any]) -> list[Any]:
    """One picture or caption, or several -> a list. Raises: ValueError: there are none."""
    if isinstance(items, Image.Image | Path | str) or not hasattr(items, "__len__"):
        return [items]
    if len(items) == 0:
        raise ValueError("nothing to encode: the list is empty")
    return list(items)


def upright(picture: Any) -> Image.Image:
    """An opened picture, as pictures were when training shards were packed.

    Raises:
        UserError: it is something else.
    """
    if not isinstance(picture, Image.Image):
        raise UserError(
            f"a {type(picture).__name__} is no picture: give pictures that PIL opened, such as "
            "Image.open(path); PIL.Image.fromarray(array) makes one of (height, width, 3) uint8"
        )
    return to_upright_rgb(picture)


def not_empty(text: str) -> str:
    """Raises: ValueError: there is nothing to read."""
    if not text.strip():
        raise ValueError("a caption is empty")
    return text


def read_captions(
    captions: Sequence[str], config: CaptionsConfig, tokenizer: Tokenizer
) -> list[list[str]]:
    """The texts of each caption, as a model reads them; warns of those that are cut.

    Raises:
        ValueError: a caption is empty.
    """
    texts = [texts_of_caption(not_empty(caption), config) for caption in captions]
    warn_of_cut((text for of_one in texts for text in of_one), tokenizer)
    return texts


def warn_of_cut(texts: Iterable[str], tokenizer: Tokenizer) -> None:
    """A UserWarning with the number of texts whose end is not read, if there are any."""
    cut = [text for text in dict.fromkeys(texts) if tokenizer.is_cut(text)]
    if cut:
        warnings.warn(
            f"{_CUT} {tokenizer.context_length} tokens that the model reads, so that "
            f"the end is not read: {len(cut)} of the texts, the first {cut[0][:60]!r}...",
            stacklevel=2,
        )


@contextmanager
def quiet_of_cut() -> Iterator[None]:
    """Without that warning: for texts that are the same for models of any context."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", _CUT)
        yield
