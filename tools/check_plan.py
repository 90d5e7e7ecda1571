"""The plan's memory of a step against that of a real step on the CPU.

    python -m tools.check_plan CONFIG.yaml [gpus=2] [key=value ...] [--json]

The step is that of the trainer: its module, its engine and AdamW, its way of leading gradients back
(`engine.num_micro_batches`), the running mean of the weights; twice, for the optimiser makes its
numbers in the first. `gpus` ranks do it together, as processes, and the one with the most counts.
Measured are the bytes in tensors, which is what is planned. All texts are of one length, as the
plan supposes.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.distributed import Work

from pretrain.data.captions import num_texts
from pretrain.data.tokens import pack_tokens
from pretrain.distributed.engine import Engine
from pretrain.distributed.exchange import Exchange
from pretrain.distributed.microbatch import backpropagate
from pretrain.distributed.ranks import joined_ranks
from pretrain.ema import Ema
from pretrain.ops.batch_norm import commit_statistics
from pretrain.optim import parameter_groups
from pretrain.plan.command import PlanConfig, make_plan
from pretrain.trained_module import build_module
from recaption.common.config import ConfigError, load_config, print_json, run_command
from tools.memory import peak_tensor_bytes

#: Among the arguments, followed by a folder: measure, write the bytes there, and end.
MEASURE = "--measure="


def main(argv: list[str]) -> None:
    arguments = ["device=cpu", "data.train=none", *argv]
    folders = [a.removeprefix(MEASURE) for a in argv if a.startswith(MEASURE)]
    config = load_config(PlanConfig, [a for a in arguments if not a.startswith(MEASURE)], __doc__)
    if folders:
        measure(config, Path(folders[0]))
        return
    if config.nodes > 1:
        raise ConfigError(f"nodes={config.nodes}: the ranks are processes here, give gpus=... only")
    memory = make_plan(config)["memory"][config.engine.precision][config.engine.zero_stage]
    measured = measured_peak(config.world_size, argv)
    ratio = memory["peak"] / measured
    print(
        f"planned {memory['peak'] / 2**20:,.1f} MiB, measured {measured / 2**20:,.1f} MiB: "
        f"{ratio:.3f}"
    )
    print_json(argv, {"planned": memory["peak"], "measured": measured, "ratio": ratio})


def measured_peak(num_ranks: int, argv: list[str]) -> int:
    """The most bytes in tensors of any of `num_ranks` processes at any moment of two steps."""
    launcher = [sys.executable, "-m"]
    if num_ranks > 1:
        launcher += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(num_ranks)]
        launcher += ["-m"]
    # In processes of their own: nothing that planning left behind is in the way.
    with tempfile.TemporaryDirectory() as folder:
        command = [*launcher, "tools.check_plan", *argv, MEASURE + folder]
        subprocess.run(command, stdout=sys.stderr, check=True)
        return max(int(path.read_text()) for path in Path(folder).iterdir())


def measure(config: PlanConfig, folder: Path) -> None:
    """One rank's part: writes its bytes into a file of `folder`."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed  # noqa: F401  what it allocates when it is imported is not counted

    with joined_ranks(config.ranks) as ranks:
        if ranks.world_size > 1:
            _wait_until_gloo_let_go()
        peak = peak_tensor_bytes(lambda: train(config, num_steps=2))
    (folder / str(ranks.rank)).write_text(str(peak))


def _wait_until_gloo_let_go() -> None:
    """Makes this thread the last to hold what travelled.

    The profiler sees what the thread that it was begun in frees. What gloo's threads free would
    count for ever, and whether they do is a race.
    """
    wait = Work.wait

    def wait_and_let_go(work: Work, *arguments: Any) -> Any:
        result = wait(work, *arguments)
        time.sleep(0.005)
        return result

    Work.wait = wait_and_let_go  # type: ignore[method-assign, assignment]


def train(config: PlanConfig, num_steps: int) -> None:
    """Steps of the trainer on noise."""
    size, side = config.data.batch_size, config.model.image.size
    number = num_texts(config.data.captions)
    module = build_module(config).train()
    adam = {"betas": tuple(config.optim.betas), "eps": config.optim.eps}
    groups = parameter_groups(module, config.optim)
    engine = Engine(module, groups, config.engine, size, adam)
    engine.set_learning_rate(1e-6)
    ema = Ema(engine.shards, config.engine.ema_decay) if config.engine.ema_decay else None
    images = torch.randn(size, 3, side, side)
    length = min(config.text_length, config.model.text.part.context_length)
    texts = pack_tokens([[0] * length] * (size * number), number)
    pieces = texts.split(config.engine.num_micro_batches)
    for step in range(num_steps):
        generator = torch.Generator().manual_seed(step)
        backpropagate(engine, module, images, pieces, Exchange(), generator, seed=step)
        assert engine.step()
        commit_statistics(module)
        if ema is not None:
            ema.update(step + 1)


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
