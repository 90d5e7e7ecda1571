"""Prints the parameters and the forward cost of a model, part by part.

    python -m pretrain.models.count [YAML ...] [key=value ...]

The files are those of `configs/model/` and `configs/objective/`.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pretrain.data.tokens import pack_tokens
from pretrain.models.dual import DualEncoder
from pretrain.models.image.hierarchical import HierarchicalEncoder
from pretrain.models.registry import ModelConfig, build_model
from pretrain.objectives.registry import ObjectiveConfig, build_objective
from recaption.common.config import load_config, print_json, run_command


@dataclass
class CountConfig:
    """What is counted."""

    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    num_texts: int = 8  # texts an image, for the cost
    text_length: int = 24  # tokens of each


def count_parameters(model: DualEncoder, objective: nn.Module) -> dict[str, int]:
    """Parameters by part; `part_text` includes `token_embedding`."""
    projections = [module for name, module in model.named_children() if name.startswith("project_")]
    superpixels = getattr(model.image, "superpixels", nn.Identity())
    counts = {
        "image": num_parameters(model.image) - num_parameters(superpixels),
        "superpixels": num_parameters(superpixels),
        "part_text": num_parameters(model.part_text),
        "token_embedding": num_parameters(model.part_text.token_embedding),
        "whole_text": 0 if model.whole_text is None else num_parameters(model.whole_text),
        "projections": sum(num_parameters(module) for module in projections),
        "objective": num_parameters(objective),
    }
    counts["total"] = sum(counts.values()) - counts["token_embedding"]
    return counts


def forward_macs(
    model: DualEncoder, image_size: int, num_texts: int, length: int, with_tokens: bool
) -> dict[str, int]:
    """Multiply-accumulates of one image and its texts in the forward pass, by part.

    Products of matrices, convolutions and attention; with those of the image's last tokens, or
    without, as in the training of objectives that have no use for them.
    """
    model = model.eval()
    image = torch.zeros(1, 3, image_size, image_size)
    texts = pack_tokens([[0] * length] * num_texts, num_texts)
    # Attention as products of matrices: the counter does not know the fused kernel of the CPU.
    parts: dict[str, Callable[[], Any]] = {
        "image": lambda: model.encode_image(image, with_tokens=with_tokens),
        "text": lambda: model.encode_text(texts),
    }
    if isinstance(model.image, HierarchicalEncoder):
        parts["superpixels"] = partial(model.image.superpixels, image)
    macs = {}
    for name, run in parts.items():
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            run()
        macs[name] = counter.get_total_flops() // 2
    macs["image"] -= macs.get("superpixels", 0)
    return macs


def num_parameters(module: nn.Module) -> int:
    """Numbers that a module and its parts have, trained or not."""
    return sum(parameter.numel() for parameter in module.parameters())


def main(arguments: list[str]) -> None:
    config = load_config(CountConfig, arguments, __doc__)
    model = build_model(config.model)
    objective = build_objective(config.objective, config.model.embed_dim)
    parameters = count_parameters(model, objective)
    macs = forward_macs(
        model,
        config.model.image.size,
        config.num_texts,
        config.text_length,
        with_tokens="image.tokens" in objective.needs,
    )
    result: dict[str, Any] = {"parameters": parameters, "forward_macs": macs}
    for name, number in parameters.items():
        print(f"{name:<16} {number / 1e6:10.3f} M parameters")
    for name, number in macs.items():
        print(f"{name:<16} {number / 1e6:10.1f} M multiply-accumulates forward, one image")
    print_json(arguments, result)


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
