"""Convolutional stem: an image to a grid of features."""

from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor, nn

from pretrain.ops.batch_norm import BatchNorm2d, num_ranks
from pretrain.ops.linear import linear
from pretrain.ops.normed_convolution import normed_convolution
from recaption.common.config import ConfigError


@dataclass
class StemConfig:
    """Convolutions before the superpixels."""

    # output channels of each 3x3 convolution
    channels: list[int] = field(default_factory=lambda: [96, 192, 384, 768])
    # stride of each; their product is the side of a stem cell in pixels
    strides: list[int] = field(default_factory=lambda: [2, 2, 2, 1])

    def __post_init__(self) -> None:
        if not self.channels:
            raise ConfigError("stem.channels is empty: give at least one convolution")
        if len(self.channels) != len(self.strides):
            raise ConfigError(
                f"stem.channels {self.channels} and stem.strides {self.strides} differ in length: "
                "give one of each per convolution"
            )

    @property
    def stride(self) -> int:
        return prod(self.strides)


class ConvStem(nn.Module):
    """3x3 convolutions, each with BatchNorm and ReLU, then a 1x1 one to the encoder's width.

    In training a sample's features depend on the batch, that of all ranks. So a batch that is
    worked on in pieces passes through the stem as a whole.
    """

    def __init__(self, config: StemConfig, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        incoming = 3
        for channels, stride in zip(config.channels, config.strides, strict=True):
            layers += [
                nn.Conv2d(incoming, channels, 3, stride=stride, padding=1, bias=False),
                BatchNorm2d(channels),
                nn.ReLU(inplace=True),
            ]
            incoming = channels
        layers.append(PointwiseConvolution(incoming, width, 1))
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) images -> (B, H/stride, W/stride, channels), to be projected."""
        if self.training and num_ranks() > 1:
            return self._uncompiled(images)
        return self._features(images)

    @torch.compiler.disable
    def _uncompiled(self, images: Tensor) -> Tensor:
        """What passes between ranks breaks a compiler's graph: better once than at each norm."""
        return self._features(images)

    def _features(self, images: Tensor) -> Tensor:
        features = images.contiguous(memory_format=torch.channels_last)
        *layers, _ = self.layers
        features = layers[0](features)
        for norm, convolution in zip(layers[1::3], layers[3::3], strict=False):
            assert isinstance(norm, BatchNorm2d) and isinstance(convolution, nn.Conv2d)
            features = normed_convolution(features, norm, convolution)
        for layer in layers[-2:]:
            features = layer(features)
        return features.permute(0, 2, 3, 1)

    def project(self, features: Tensor) -> Tensor:
        """(..., channels) -> (..., width): the 1x1 convolution.

        As it is linear, it may come before a mean over cells or, with fewer rows, behind it.
        """
        projected: Tensor = self.layers[-1](features)
        return projected


class PointwiseConvolution(nn.Conv2d):
    """A 1x1 convolution of channels that come last: (..., in) -> (..., out)."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight.flatten(1), self.bias)
