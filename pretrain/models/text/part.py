"""Causal text tower over packed texts, as CLIP's."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretrain.models.blocks import ACTIVATIONS, Block, init_text_weights
from pretrain.ops.attention import has_variable_length_kernel
from pretrain.ops.packing import Packing, pack_as_they_come, pack_by_length
from recaption.common.config import ConfigError, check_at_least, check_choice


@dataclass
class PartTextConfig:
    """Tower for one text at a time: a part of a caption, or a whole caption."""

    width: int = 512  # channels
    num_layers: int = 8  # blocks
    num_heads: int = 8  # heads
    context_length: int = 77  # longest text in tokens, start and end included
    vocab_size: int = 49408  # tokens of the tokenizer
    activation: str = "gelu"  # of the blocks' MLPs: gelu, or quick_gelu (OpenAI's CLIP)

    def __post_init__(self) -> None:
        check_choice("model.text.part.activation", self.activation, ACTIVATIONS)
        check_at_least(1, {"model.text.part.num_layers": self.num_layers})


class PartTextEncoder(nn.Module):
    """Pre-LN causal transformer; the feature of a text stands at its end token.

    Texts come packed: one row of tokens with offsets. Everything but the attention works on that
    row, so no padding is ever computed. In the last block only the end tokens ask.
    """

    def __init__(self, config: PartTextConfig) -> None:
        super().__init__()
        self.width = config.width
        self.context_length = config.context_length
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.positions = nn.Parameter(torch.empty(config.context_length, config.width))
        self.blocks = nn.ModuleList(
            Block(config.width, config.num_heads, activation=config.activation)
            for _ in range(config.num_layers)
        )
        self.norm = nn.LayerNorm(config.width)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.01)
        init_text_weights(self.blocks, config.width)

    def forward(self, tokens: Tensor, offsets: Tensor) -> Tensor:
        """Encodes R texts.

        Args:
            tokens: (T,) int64, all texts end to end.
            offsets: (R+1,) int64, first token of each text, then T.

        Returns:
            (R, width) features at the end tokens, after the final LayerNorm.

        Raises:
            ConfigError: a text is longer than the context (not told on the way of the fused kernel,
                which asks nothing of the device; `Tokenizer` cuts texts).
        """
        packing = self._pack(tokens, offsets)
        x = self.token_embedding(packing.arrange(tokens))
        x = x + F.embedding(packing.positions, self.positions)
        *blocks, last = self.blocks
        for block in blocks:
            x = block(x, packing=packing)
        assert isinstance(last, Block)
        return packing.restore(self.norm(last(x, packing=packing, only_one=True)))

    def encode_padded(self, tokens: Tensor) -> Tensor:
        """What `forward` gives, of operations that do not depend on the texts: for exports.

        Args:
            tokens: (R, N) int64, each text with anything below its end token, the largest number
                of all, behind it; N at most the context length.

        Returns:
            (R, width).
        """
        x = self.token_embedding(tokens) + self.positions[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x, causal=True)
        ends = tokens.argmax(dim=1)[:, None, None].expand(-1, 1, x.shape[2])
        features: Tensor = self.norm(x.gather(1, ends).squeeze(1))
        return features

    def _pack(self, tokens: Tensor, offsets: Tensor) -> Packing:
        device = tokens.device
        is_half = torch.is_autocast_enabled(device.type) or self.positions.dtype != torch.float32
        first = self.blocks[0]
        assert isinstance(first, Block)
        head_width = self.width // first.attention.num_heads
        if is_half and has_variable_length_kernel(device, head_width):
            return pack_as_they_come(offsets, len(tokens), self.context_length)
        packing = pack_by_length(offsets)
        if packing.max_length > self.context_length:
            raise ConfigError(
                f"a text has {packing.max_length} tokens, the context of the text tower only "
                f"{self.context_length}; cut texts when they are tokenized"
            )
        return packing
