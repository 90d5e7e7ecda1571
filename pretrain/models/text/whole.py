"""CAFT's whole-caption encoder: from the features of the parts to one of the whole."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pretrain.models.blocks import Block, Mlp, init_text_weights
from recaption.common.config import ConfigError


@dataclass
class WholeTextConfig:
    """Encoder of the caption from its parts; its width is that of the part tower."""

    num_parts: int = 4  # parts of a caption, the first texts of each image
    num_layers: int = 4  # blocks
    num_heads: int = 8  # heads


class WholeTextEncoder(nn.Module):
    """Causal transformer over [parts; class token], with a residual adapter on the parts.

    The adapter lets the part features serve two masters: their own loss, and the whole.
    """

    def __init__(self, config: WholeTextConfig, width: int) -> None:
        super().__init__()
        self.num_parts = config.num_parts
        self.adapter = Mlp(width, max(64, width * 2 // 3))
        self.adapter_scale = nn.Parameter(torch.full((width,), 1e-3))
        self.cls = nn.Parameter(torch.empty(1, 1, width))
        self.positions = nn.Parameter(torch.empty(1, config.num_parts + 1, width))
        self.blocks = nn.ModuleList(
            Block(width, config.num_heads) for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.cls, std=0.02)
        nn.init.normal_(self.positions, std=0.01)
        init_text_weights(self.blocks, width)

    def forward(self, parts: Tensor) -> Tensor:
        """(B, K, width) features of each image's texts, parts first -> (B, width) of the whole.

        Raises:
            ConfigError: there are fewer texts an image than parts.
        """
        if parts.shape[1] < self.num_parts:
            raise ConfigError(
                f"the whole-text encoder needs {self.num_parts} parts an image and got "
                f"{parts.shape[1]}; see the number of parts in the data's captions"
            )
        parts = parts[:, : self.num_parts]
        parts = parts + self.adapter_scale * self.adapter(parts)
        x = torch.cat([parts, self.cls.expand(len(parts), -1, -1)], dim=1) + self.positions
        for block in self.blocks:
            x = block(x, causal=True)
        whole: Tensor = self.norm(x[:, -1])
        return whole
