"""Attention pooling of an image's tokens, conditioned on a text (FLAIR, CAFT)."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretrain.ops.linear import Linear
from recaption.common.config import ConfigError

NUM_HEADS = 8


class KeysValues(NamedTuple):
    """Keys and values of each head, the zero key last: (B, 8, M+1, D/8) each."""

    keys: Tensor
    values: Tensor


class AttentionPooling(nn.Module):
    """What a text sees of an image: multi-head attention of one query over the image's tokens.

    Query, key and value have a LayerNorm each. An all-zero key with an all-zero value stands beside
    the tokens, so that a text which finds nothing can look at nothing.

    Queries and tokens are projected apart from each other, each once, however many pairs they form.

    Args:
        width: joint width D, a multiple of 8.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        if width % NUM_HEADS:
            raise ConfigError(
                f"attention pooling needs a width that is a multiple of 8, not {width}"
            )
        self.norm_query = nn.LayerNorm(width)
        self.norm_key = nn.LayerNorm(width)
        self.norm_value = nn.LayerNorm(width)
        self.query = Linear(width, width)
        self.key = Linear(width, width)
        self.value = Linear(width, width)
        self.project = Linear(width, width)
        for layer in (self.query, self.key, self.value, self.project):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def project_queries(self, texts: Tensor) -> Tensor:
        """(..., D) text features -> (..., D) queries."""
        queries: Tensor = self.query(self.norm_query(texts))
        return queries

    def project_tokens(self, tokens: Tensor) -> KeysValues:
        """(B, M, D) image tokens -> keys and values."""
        projected = (self.key(self.norm_key(tokens)), self.value(self.norm_value(tokens)))
        heads = (x.unflatten(2, (NUM_HEADS, -1)).transpose(1, 2) for x in projected)
        return KeysValues(*(F.pad(x, (0, 0, 0, 1)) for x in heads))

    def pool(self, queries: Tensor, image: KeysValues) -> Tensor:
        """(B, Q, D) projected queries of each image -> (B, Q, D) pooled, not normalised."""
        pooled: Tensor = self.project(mix_values(queries, image))
        return pooled

    def forward(self, texts: Tensor, tokens: Tensor) -> Tensor:
        """(B, Q, D) texts and (B, M, D) tokens of the same images -> (B, Q, D) pooled tokens."""
        return self.pool(self.project_queries(texts), self.project_tokens(tokens))

    def pool_alone(self, tokens: Tensor) -> Tensor:
        """(B, M, D) -> (B, M, D): what a text would pool if it attended to that token only."""
        alone: Tensor = self.project(self.value(self.norm_value(tokens)))
        return alone

    def weights(self, texts: Tensor, tokens: Tensor) -> Tensor:
        """(B, 8, Q, M+1) attention of each head; the last column is the zero key."""
        queries = self.project_queries(texts).unflatten(2, (NUM_HEADS, -1)).transpose(1, 2)
        keys = self.project_tokens(tokens).keys
        scores = queries @ keys.transpose(2, 3) / queries.shape[3] ** 0.5
        return torch.softmax(scores, dim=3)


def mix_values(queries: Tensor, image: KeysValues) -> Tensor:
    """(B, Q, D) projected queries of each image -> (B, Q, D) values by their attention."""
    per_head = queries.unflatten(2, (NUM_HEADS, -1)).transpose(1, 2)
    mixed = F.scaled_dot_product_attention(per_head, image.keys, image.values)
    return mixed.transpose(1, 2).flatten(2)
