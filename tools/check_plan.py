"""The plan's memory of a step against that of a real step on the CPU.

    python -m tools.check_plan CONFIG.yaml [key=value ...] [--json]

The step is that of the trainer: its module, its engine, AdamW, one rank; twice, for the optimiser
makes its numbers in the first. Measured are the bytes in tensors, which is what is planned. All
texts are of one length, as the plan supposes.
"""

import json
import os
import subprocess
import sys
from typing import Any

import torch
from torch import Tensor, nn

from pretrain.data.captions import num_texts
from pretrain.data.tokens import PackedTexts, pack_tokens
from pretrain.distributed.engine import Engine
from pretrain.distributed.exchange import Exchange
from pretrain.distributed.ranks import joined_ranks
from pretrain.optim import parameter_groups
from pretrain.plan.command import PlanConfig, make_plan
from pretrain.plan.step import encode
from pretrain.trained_module import TrainedModule, build_module
from recaption.common.config import load_config, print_json, run_command
from tools.memory import peak_tensor_bytes

#: Among the arguments: measure, print the bytes, and end.
MEASURE = "--measure"


def main(argv: list[str]) -> None:
    arguments = ["device=cpu", "data.train=none", *argv]
    config = load_config(PlanConfig, [a for a in arguments if a != MEASURE], __doc__)
    if MEASURE in argv:
        print(measured_peak(config))
        return
    memory = make_plan(config)["memory"][config.engine.precision][config.engine.zero_stage]
    # In a process of its own: nothing that planning left behind is in the way.
    process = subprocess.run(
        [sys.executable, "-m", "tools.check_plan", *argv, MEASURE],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    measured = json.loads(process.stdout.splitlines()[-1])
    ratio = memory["peak"] / measured
    print(
        f"planned {memory['peak'] / 2**20:,.1f} MiB, measured {measured / 2**20:,.1f} MiB: "
        f"{ratio:.3f}"
    )
    print_json(argv, {"planned": memory["peak"], "measured": measured, "ratio": ratio})


def measured_peak(config: PlanConfig) -> int:
    """The most bytes in tensors at any moment of two steps."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed  # noqa: F401  what it allocates when it is imported is not counted

    with joined_ranks():
        return peak_tensor_bytes(lambda: _train(config, num_steps=2))


class TrainingLoss(nn.Module):
    """What a run trains, as a module that gives the loss."""

    def __init__(self, module: TrainedModule) -> None:
        super().__init__()
        self.model, self.objective = module.model, module.objective
        self.use_bfloat16, self.with_tokens = module.use_bfloat16, module.with_tokens

    def forward(self, images: Tensor, texts: PackedTexts) -> Tensor:
        image, text = encode(self, images, texts)
        terms = self.objective(image, text, Exchange(), torch.Generator())
        return torch.stack(list(terms.values())).sum()


def _train(config: PlanConfig, num_steps: int) -> None:
    size, side = config.data.batch_size, config.model.image.size
    number = num_texts(config.data.captions)
    module = TrainingLoss(build_module(config)).train()
    adam = {"betas": tuple(config.optim.betas), "eps": config.optim.eps}
    groups = parameter_groups(module, config.optim)
    engine = Engine(module, groups, config.engine, size, adam)
    engine.set_learning_rate(1e-6)
    images = torch.randn(size, 3, side, side)
    length = min(config.text_length, config.model.text.part.context_length)
    texts = pack_tokens([[0] * length] * (size * number), number)
    for _ in range(num_steps):
        loss: Any = engine.forward(images, texts)
        engine.backward(loss)
        engine.step()


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
