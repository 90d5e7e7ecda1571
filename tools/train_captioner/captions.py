"""Captions as tokens, batches of them, and what each token is about."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from tools.train_captioner.pool import ATTRIBUTES, COLOR_IDS, KIND_IDS

IGNORED = -100

KIND, COLOR, ORDER = (list(ATTRIBUTES).index(name) for name in ("kind", "color", "order"))


@dataclass(frozen=True)
class EncodedCaptions:
    """Captions as tokens, each closed by ``</s>``, and the tokens that matter.

    ``kinds`` and ``colors`` (vocabulary) give the class of each token that is a kind or a colour,
    as in ``ScenePool``, and 0 for every other.
    """

    tokens: list[list[int]]
    kinds: Tensor
    colors: Tensor
    period_id: int
    the_id: int
    pad_id: int
    bos_id: int
    eos_id: int


def encode_captions(tokenizer: PreTrainedTokenizerFast, captions: Sequence[str]) -> EncodedCaptions:
    eos_id = int(tokenizer.eos_token_id)
    encoded = tokenizer(list(captions), add_special_tokens=False)["input_ids"]
    return EncodedCaptions(
        [[*ids, eos_id] for ids in encoded],
        kinds=_classes_of_tokens(tokenizer, KIND_IDS),
        colors=_classes_of_tokens(tokenizer, COLOR_IDS),
        period_id=int(tokenizer.convert_tokens_to_ids(".")),
        the_id=_id_of_word(tokenizer, "the"),
        pad_id=int(tokenizer.pad_token_id),
        bos_id=int(tokenizer.bos_token_id),
        eos_id=eos_id,
    )


def _classes_of_tokens(tokenizer: PreTrainedTokenizerFast, classes: dict[str, int]) -> Tensor:
    table = torch.zeros(len(tokenizer), dtype=torch.uint8)
    for word, number in classes.items():
        table[_id_of_word(tokenizer, word)] = number
    return table


def _id_of_word(tokenizer: PreTrainedTokenizerFast, word: str) -> int:
    """The token of a word inside a sentence, which begins with a space."""
    return int(tokenizer(f" {word}", add_special_tokens=False)["input_ids"][0])


def batches_by_length(
    lengths: Sequence[int], batch_size: int, generator: np.random.Generator
) -> Iterator[np.ndarray]:
    """Endless shuffled batches of indices whose captions are about as long: little padding."""
    lengths_array = np.asarray(lengths)
    while True:
        order = generator.permutation(len(lengths_array))
        group_size = 16 * batch_size
        for start in range(0, len(order) - batch_size + 1, group_size):
            group = order[start : start + group_size]
            group = group[np.argsort(lengths_array[group], kind="stable")]
            num_batches = len(group) // batch_size
            for index in generator.permutation(num_batches):
                yield group[index * batch_size : (index + 1) * batch_size]


def pointer_targets(tokens: Tensor, captions: EncodedCaptions, centers: Tensor) -> Tensor:
    """(B, T) the patch that each token is about, or ``IGNORED``.

    That is the patch of the thing that the sentence describes (things are described from left to
    right, after a first sentence about none), and in "the red house" that of the red house.

    Args:
        tokens: (B, T) captions, padding included.
        captions: what the tokens are.
        centers: (B, P, len(ATTRIBUTES)) as in ``ScenePool``.
    """
    is_period = (tokens == captions.period_id).long()
    sentence = is_period.cumsum(1) - is_period
    matches = (centers[:, None, :, ORDER] == sentence[..., None]) & (sentence > 0)[..., None]
    kinds, colors = captions.kinds[tokens], captions.colors[tokens]
    is_referred = (tokens[:, :-2] == captions.the_id) & (colors[:, 1:-1] > 0) & (kinds[:, 2:] > 0)
    is_same = (centers[:, None, :, KIND] == kinds[:, 2:, None]) & (
        centers[:, None, :, COLOR] == colors[:, 1:-1, None]
    )
    for shift in (1, 2):  # the colour and the thing
        window = matches[:, shift : shift + is_same.shape[1]]
        matches[:, shift : shift + is_same.shape[1]] = torch.where(
            is_referred[..., None], is_same, window
        )
    return matches.to(torch.uint8).argmax(-1).masked_fill(~matches.any(-1), IGNORED)
