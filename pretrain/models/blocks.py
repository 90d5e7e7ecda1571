"""The transformer block that every tower shares."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretrain.ops.attention import Attention
from pretrain.ops.linear import Linear, linear_of, normed_linear
from pretrain.ops.packing import Packing
from pretrain.ops.recompute import Recomputing


def quick_gelu(x: Tensor) -> Tensor:
    """x sigmoid(1.702 x), the approximation of GELU that OpenAI's CLIP was trained with."""
    return x * torch.sigmoid(1.702 * x)


#: Name in configurations -> what stands between the two layers of an MLP.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "quick_gelu": quick_gelu}


class Mlp(nn.Module):
    """Linear, GELU, Linear; keeps the hidden features only before the GELU."""

    def __init__(self, width: int, hidden: int, activation: str = "gelu") -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.fc1 = Linear(width, hidden)
        self.fc2 = Linear(hidden, width)

    def forward(self, x: Tensor, norm: nn.LayerNorm | None = None) -> Tensor:
        """(..., width) -> (..., width), of `norm` of x if there is one."""
        if norm is None:
            hidden = self.fc1(x)
        else:
            hidden = normed_linear(x, norm, self.fc1.weight, self.fc1.bias)
        return linear_of(self.activation, self.fc2.weight, self.fc2.bias, hidden)


class Block(Recomputing):
    """Pre-LN transformer block: x + attention(LN x), then x + MLP(LN x).

    Norms and most linear layers are not called as modules: `normed_linear` and `linear_of` take
    their parameters. So forward hooks on `norm1`, `norm2`, `attention.qkv`, `mlp.fc1` and `mlp.fc2`
    do not fire, and on `attention.project` not for packed texts of several lengths.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        eps: float = 1e-5,
        activation: str = "gelu",
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attention = Attention(width, num_heads)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, int(width * mlp_ratio), activation)

    def forward(
        self,
        x: Tensor,
        causal: bool = False,
        packing: Packing | None = None,
        only_one: bool = False,
    ) -> Tensor:
        """One block.

        Args:
            x: (B, N, width); or (T, width) packed texts with their `packing`, then always causal.
            causal: whether tokens see only those before them.
            packing: of packed texts.
            only_one: compute one token of each sequence alone: the first, or the last of a text.

        Returns:
            the shape of x; with `only_one` (B, 1, width), or (R, width) of R packed texts.
        """
        if only_one:
            queries = x[:, :1] if packing is None else x[packing.ends]
            result: Tensor = self.run(self._for_queries, queries, x, packing)
        else:
            result = self.run(self._forward, x, causal, packing)
        return result

    def _forward(self, x: Tensor, causal: bool, packing: Packing | None) -> Tensor:
        x = x + self.attention(x, self.norm1, causal, packing)
        return x + self.mlp(x, self.norm2)

    def _for_queries(self, queries: Tensor, x: Tensor, packing: Packing | None = None) -> Tensor:
        queries = queries + self.attention.for_queries(queries, x, self.norm1, packing)
        return queries + self.mlp(queries, self.norm2)


class Blocks(nn.Sequential):
    """One block or more, in turn."""

    def forward(self, x: Tensor, only_first: bool = False) -> Tensor:
        """(B, N, width) -> the same; with `only_first` (B, 1, width), at the first token alone."""
        *others, last = self
        for block in others:
            x = block(x)
        result: Tensor = last(x, only_one=True) if only_first else last(x)
        return result


def init_image_weights(module: nn.Module) -> None:
    """As ViT: linear layers from a normal of 0.02 cut at two deviations, biases zero.

    Convolutions keep their fan-in initialisation.
    """
    for child in module.modules():
        if isinstance(child, nn.Linear):
            nn.init.trunc_normal_(child.weight, std=0.02)
            if child.bias is not None:
                nn.init.zeros_(child.bias)


def init_text_weights(blocks: nn.ModuleList, width: int) -> None:
    """As CLIP: narrower for wider layers, and for more layers where they add to the residual."""
    attention_std = width**-0.5
    residual_std = attention_std * (2 * len(blocks)) ** -0.5
    for block in blocks:
        assert isinstance(block, Block)
        nn.init.normal_(block.attention.qkv.weight, std=attention_std)
        nn.init.normal_(block.attention.project.weight, std=residual_std)
        nn.init.normal_(block.mlp.fc1.weight, std=(2 * width) ** -0.5)
        nn.init.normal_(block.mlp.fc2.weight, std=residual_std)
        for layer in (block.attention.qkv, block.attention.project, block.mlp.fc1, block.mlp.fc2):
            nn.init.zeros_(layer.bias)
