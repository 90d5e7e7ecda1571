"""How like a text is to what it sees of an image: text-conditioned cosines (FLAIR, CAFT)."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from pretrain.ops.attention_pooling import AttentionPooling, KeysValues, mix_values
from pretrain.ops.linear import linear


def chosen_cosines(
    pooling: AttentionPooling, image: KeysValues, texts: Tensor, chosen: Tensor, chunk_size: int
) -> Tensor:
    """Cosine of some texts with what each sees of an image, for every image.

    A text is projected to a query once, however many images it meets. With chunks, what a chunk of
    images pools is computed again for the gradients, so that memory does not grow with the pairs.

    Args:
        pooling: what pools.
        image: keys and values of B images, of `project_tokens`.
        texts: (T, D), not normalised.
        chosen: (B, Q) int64: which texts each image meets.
        chunk_size: images at once; 0: all, and nothing is computed twice.

    Returns:
        (B, Q).
    """
    queries = pooling.project_queries(texts)
    directions = F.normalize(texts, dim=1)
    weight, bias = pooling.project.weight, pooling.project.bias
    if chunk_size == 0:
        return cosines(image, queries[chosen], directions[chosen], weight, bias)

    def of_some(start: int, stop: int) -> Tensor:
        some = chosen[start:stop]
        keys_values = KeysValues(image.keys[start:stop], image.values[start:stop])
        return cosines(keys_values, queries[some], directions[some], weight, bias)

    return torch.cat(
        [
            checkpoint(of_some, start, stop, use_reentrant=False)
            for start, stop in _chunks(len(chosen), chunk_size)
        ]
    )


def all_cosines(
    pooling: AttentionPooling, tokens: Tensor, queries: Tensor, texts: Tensor
) -> Tensor:
    """(N, T) cosines of every text with what it sees of every image, for scoring.

    Args:
        tokens: (N, M, D) of the images.
        queries: (T, D) of `project_queries`.
        texts: (T, D) what is compared with what was pooled.
    """
    directions = F.normalize(texts, dim=1)
    rows = []
    for start, stop in _chunks(len(tokens), 16):
        image = pooling.project_tokens(tokens[start:stop])
        row = [
            cosines(
                image,
                queries[begin:end].expand(stop - start, -1, -1),
                directions[begin:end].expand(stop - start, -1, -1),
                pooling.project.weight,
                pooling.project.bias,
            )
            for begin, end in _chunks(len(texts), 2048)
        ]
        rows.append(torch.cat(row, dim=1))
    return torch.cat(rows)


def alone_cosines(pooling: AttentionPooling, tokens: Tensor, queries: Tensor) -> Tensor:
    """Cosine of texts with what attention pooling would give of each token alone.

    The attention weights themselves say where there is something to see rather than where the
    thing named is: their peak hardly depends on the sentence (figures in docs/log.md).

    Args:
        tokens: (B, M, D) of the images.
        queries: (B, Q, D) texts.

    Returns:
        (B, Q, M).
    """
    alone = F.normalize(pooling.pool_alone(tokens), dim=2)
    return F.normalize(queries, dim=2) @ alone.transpose(1, 2)


def cosines(
    image: KeysValues, queries: Tensor, directions: Tensor, weight: Tensor, bias: Tensor
) -> Tensor:
    """Cosine of texts with what they see of an image.

    Args:
        image: keys and values of B images.
        queries: (B, Q, D) projected texts.
        directions: (B, Q, D) texts of length 1.
        weight, bias: (D, D) and (D,) of the output projection.

    Returns:
        (B, Q).
    """
    pooled = F.normalize(linear(mix_values(queries, image), weight, bias), dim=2)
    return (pooled * directions).sum(dim=2)


def _chunks(length: int, size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, length, size):
        yield start, min(start + size, length)
