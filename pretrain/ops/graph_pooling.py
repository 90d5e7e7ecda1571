"""Graph pooling: many tokens to few, each few a soft segment of the many (CAST, CAFT)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretrain.ops.attention import Attention
from pretrain.ops.farthest_point_sampling import farthest_point_sampling
from pretrain.ops.linear import Linear, normed_linear
from pretrain.ops.recompute import Recomputing, recomputed

#: Sharpness of the assignment: logits are this times a cosine.
ASSIGNMENT_SCALE = 5.0


class GraphPooling(Recomputing):
    """Pools N tokens to k: sampled tokens are centroids, the others join them by similarity.

    "Learning Hierarchical Image Segmentation For Recognition and By Recognition" (CAST), as CAFT
    uses it. See `forward` for the steps.

    Args:
        width: channels d, a multiple of `num_heads`.
        num_clusters: tokens that remain, k.
        num_heads: heads of the attention that compares tokens; 12 as published, at every size.
        dropout: on the hidden features of the tokens; 0.1 as published.
    """

    def __init__(
        self, width: int, num_clusters: int, num_heads: int = 12, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.num_clusters = num_clusters
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.attention = Attention(width, num_heads)
        self.bias = nn.Parameter(torch.zeros(width))
        self.fc1 = nn.Sequential(
            nn.LayerNorm(width), Linear(width, 4 * width), nn.GELU(), nn.Dropout(dropout)
        )
        self.fc2 = nn.Sequential(nn.LayerNorm(4 * width), Linear(4 * width, width))

    def forward(
        self, cls: Tensor, tokens: Tensor, masked: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Samples centroids, assigns tokens to them, and averages hidden features per centroid.

        Args:
            cls: (B, 1, d) class token: goes through the two layers, takes no part in the pooling.
            tokens: (B, N, d).
            masked: (B, N) bool, tokens that must not be sampled. They are assigned all the same.

        Returns:
            (B, 1, d) class token, (B, k, d) pooled tokens, (B, N, k) assignment logits.
        """
        centroids = farthest_point_sampling(tokens, self.num_clusters, masked)
        pooled: tuple[Tensor, Tensor, Tensor] = self.run(self._pool, cls, tokens, centroids)
        return pooled

    def _pool(
        self, cls: Tensor, tokens: Tensor, centroids: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        index = centroids.unsqueeze(2).expand(-1, -1, tokens.shape[2])
        nodes = F.normalize(self._node_features(tokens), dim=2)
        logits = ASSIGNMENT_SCALE * nodes @ nodes.gather(1, index).transpose(1, 2)
        assignment = logits.softmax(dim=2)

        share = assignment / assignment.sum(dim=1, keepdim=True)
        # Not kept: the activations of the hidden features, which are wide and cost little.
        mixed = recomputed(self._mix, share, _normed(self.fc1, tokens))
        pooled = tokens.gather(1, index) + _normed(self.fc2, mixed)
        hidden = self._activate(_normed(self.fc1, cls))
        return cls + _normed(self.fc2, hidden), pooled, logits

    def _node_features(self, tokens: Tensor) -> Tensor:
        """Tokens in context, without what they all share: (B, N, d)."""
        nodes = tokens + self.attention(tokens, self.norm)
        centred: Tensor = nodes - nodes.mean(dim=1, keepdim=True) + self.bias
        return centred

    def _activate(self, hidden: Tensor) -> Tensor:
        for layer in list(self.fc1)[2:]:
            hidden = layer(hidden)
        return hidden

    def _mix(self, share: Tensor, hidden: Tensor) -> Tensor:
        """(B, N, k) and (B, N, 4 d) not activated -> (B, k, 4 d)."""
        return share.transpose(1, 2) @ self._activate(hidden)


def _normed(layers: nn.Sequential, x: Tensor) -> Tensor:
    """(..., in) -> (..., out), by the two layers that come first, a norm and a linear one."""
    norm, linear, *_ = layers
    assert isinstance(norm, nn.LayerNorm) and isinstance(linear, Linear)
    return normed_linear(x, norm, linear.weight, linear.bias)
