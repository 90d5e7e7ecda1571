"""Model FLOPs of training, for MFU (PaLM, Chowdhery et al. 2022, appendix B)."""

from dataclasses import dataclass

import torch

from pretrain.models.count import forward_macs
from pretrain.models.registry import ModelConfig, build_model


@dataclass(frozen=True)
class ModelFlops:
    """What a training step must compute, however it is computed.

    Two operations a multiply-accumulate of the forward pass, and three times that for forward and
    backward; superpixels, through which no gradient goes, once. Blocks that are computed again and
    the objective are not counted: figures of MFU are low by the objective's share.
    """

    per_sample: float  # image tower
    per_token: float  # text towers

    def of(self, num_samples: float, num_tokens: float) -> float:
        return self.per_sample * num_samples + self.per_token * num_tokens


def count_flops(config: ModelConfig, num_texts: int) -> ModelFlops:
    """Counts on the CPU, by one forward pass of one image and its texts.

    The cost of texts is taken to be proportional to their tokens, from texts of the whole context;
    for shorter ones the attention makes it a little less.

    Args:
        config: the pair of encoders.
        num_texts: texts an image.
    """
    with torch.random.fork_rng(devices=[]):  # the run's own draws stay what they are
        with torch.device("meta"):  # drawing the weights of a large model takes long
            model = build_model(config)
        model.to_empty(device="cpu")
        with torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers()):
                tensor.zero_()
        length = config.text.part.context_length
        macs = forward_macs(model, config.image.size, num_texts, length, with_tokens=False)
    return ModelFlops(
        per_sample=2.0 * (3 * macs["image"] + macs.get("superpixels", 0)),
        per_token=2.0 * 3 * macs["text"] / (num_texts * length),
    )
