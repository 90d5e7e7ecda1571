"""The transformer block that every tower shares."""

from torch import Tensor, nn
from torch.nn import functional as F

from pretrain.ops.attention import Attention
from pretrain.ops.linear import Linear
from pretrain.ops.packing import Packing
from pretrain.ops.recompute import Recomputing


class Mlp(nn.Module):
    """Linear, GELU, Linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden)
        self.fc2 = Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return output


class Block(Recomputing):
    """Pre-LN transformer block: x + attention(LN x), then x + MLP(LN x)."""

    def __init__(
        self, width: int, num_heads: int, mlp_ratio: float = 4.0, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attention = Attention(width, num_heads)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def forward(self, x: Tensor, causal: bool = False, packing: Packing | None = None) -> Tensor:
        """x: (B, N, width); or (T, width) packed texts with their `packing`, then always causal."""
        result: Tensor = self.run(self._forward, x, causal, packing)
        return result

    def at_ends(self, x: Tensor, packing: Packing) -> Tensor:
        """(T, width) packed texts -> (R, width): what `forward` gives at the last tokens."""
        result: Tensor = self.run(self._at_ends, x, packing)
        return result

    def _forward(self, x: Tensor, causal: bool, packing: Packing | None) -> Tensor:
        x = x + self.attention(self.norm1(x), causal=causal, packing=packing)
        return x + self.mlp(self.norm2(x))

    def _at_ends(self, x: Tensor, packing: Packing) -> Tensor:
        ends = x[packing.ends] + self.attention.at_ends(self.norm1(x), packing)
        return ends + self.mlp(self.norm2(ends))


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
