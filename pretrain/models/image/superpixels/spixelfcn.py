"""The superpixel network that CAFT was published with.

"Superpixel Segmentation with Fully Convolutional Networks" (Yang et al., CVPR 2020): a small U-net
that gives each pixel a soft assignment to the nine cells around it. Trained elsewhere (BSD500), it
is frozen here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from pretrain.models.image.superpixels.base import NEIGHBOURS, Superpixels
from pretrain.models.published_weights import read_state_dict
from recaption.common.config import UserError

#: Sides of the network's cells: its weights know no other.
CELL_SIZE = 16
#: As the published encoder undoes the normalisation of its images, whatever that was: with
#: ImageNet's figures. Then it takes away what the network was trained with.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
NETWORK_MEAN = (0.411, 0.432, 0.45)
#: Channels at full size, and after each halving.
CHANNELS = (16, 32, 64, 128, 256)
NEGATIVE_SLOPE = 0.1


@dataclass
class SpixelFcnConfig:
    """The superpixel network."""

    # file of its weights: the authors' SpixelNet_bsd_ckpt.tar, or safetensors. Needed to begin a
    # training; a checkpoint brings them along.
    weights: str = ""


def _convolution(incoming: int, outgoing: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(incoming, outgoing, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outgoing),
        nn.LeakyReLU(NEGATIVE_SLOPE),
    )


def _enlargement(incoming: int, outgoing: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(incoming, outgoing, 4, stride=2, padding=1),
        nn.LeakyReLU(NEGATIVE_SLOPE),
    )


class SpixelFcn(Superpixels):
    """Names of the layers are the authors', so that their weights load as they are.

    It stays as it is whatever is done to the module around it: always in evaluation mode, and
    without gradients. (The published code let its BatchNorms' statistics move while CAFT trained.)
    """

    offset: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__(CELL_SIZE)
        incoming = 3
        for level, channels in enumerate(CHANNELS):
            # Of the same size as what they read, but for the first below the top.
            first = _convolution(incoming, channels, stride=2 if level else 1)
            self.add_module(f"conv{level}a", first)
            self.add_module(f"conv{level}b", _convolution(channels, channels))
            incoming = channels
        for level in reversed(range(len(CHANNELS) - 1)):
            channels = CHANNELS[level]
            self.add_module(f"deconv{level}", _enlargement(2 * channels, channels))
            self.add_module(f"conv{level}_1", _convolution(2 * channels, channels))
        # Only the first is used; the others are part of the published weights.
        for level, channels in enumerate(CHANNELS[:-1]):
            head = nn.Conv2d(channels, len(NEIGHBOURS), 3, padding=1)
            self.add_module(f"pred_mask{level}", head)
        mean, std, own = (
            torch.tensor(values).view(1, 3, 1, 1)
            for values in (IMAGENET_MEAN, IMAGENET_STD, NETWORK_MEAN)
        )
        self.register_buffer("deviation", std, persistent=False)
        self.register_buffer("offset", mean - own, persistent=False)
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def assignment(self, images: Tensor) -> Tensor:
        device = images.device.type
        # On a GPU in half precision: an argmax is all that is made of it.
        with torch.autocast(device, torch.float16, enabled=device == "cuda"):
            logits = self._logits(images.float())
        return logits.float().softmax(dim=1)

    def load_weights(self, path: Path | str) -> None:
        """Loads published weights.

        Raises:
            UserError: the file is missing, unreadable, or of another network.
        """
        state, own = read_state_dict(path), self.state_dict()
        for name in sorted(own.keys() | state.keys()):
            if name not in state or name not in own or state[name].shape != own[name].shape:
                raise UserError(f"{path} is not of the superpixel network: see its key {name!r}")
        self.load_state_dict(state)

    def _logits(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised images -> (B, 9, H, W)."""
        features = images.contiguous(memory_format=torch.channels_last)
        features = features * self.deviation + self.offset
        finer = []
        for level in range(len(CHANNELS)):
            features = self.get_submodule(f"conv{level}a")(features)
            features = self.get_submodule(f"conv{level}b")(features)
            finer.append(features)
        for level in reversed(range(len(CHANNELS) - 1)):
            enlarged = self.get_submodule(f"deconv{level}")(features)
            joined = torch.cat([finer[level], enlarged], dim=1)
            features = self.get_submodule(f"conv{level}_1")(joined)
        logits: Tensor = self.get_submodule("pred_mask0")(features)
        return logits
