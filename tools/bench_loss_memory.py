"""What each objective needs beside the features, by number of ranks and images a rank.

    python -m tools.bench_loss_memory [key=value ...] [--json]

Forward and backward of the loss alone, on leaf features, over real ranks (gloo). Told is the peak
of the tensors of one rank, the gradients of the features included, the features themselves not.
"""

import multiprocessing
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pretrain.distributed.exchange import Exchange
from pretrain.models.features import ImageFeatures, TextFeatures
from pretrain.objectives import comparison
from pretrain.objectives.base import Objective
from pretrain.objectives.registry import OBJECTIVES, ObjectiveConfig, build_objective
from recaption.common.config import UserError, check_at_least, load_config, print_json, run_command
from tools.memory import peak_tensor_bytes

#: What is measured: the objectives by name, and CAFT's other form.
CASES = ("clip", "siglip", "caft", "caft softmax", "flair")


@dataclass
class LossMemoryConfig:
    """What is measured."""

    objectives: list[str] = field(default_factory=lambda: list(CASES))
    num_ranks: list[int] = field(default_factory=lambda: [1, 2, 4])
    batch_size: int = 128  # images a rank; twice as many are measured too
    whole_batch_size: int = 2048  # of CLIP and SigLIP, which compare nothing but whole images
    embed_dim: int = 256
    num_texts: int = 4
    num_tokens: int = 49
    max_numbers: int = comparison.MAX_NUMBERS  # in a buffer; as many images at once as fit

    def __post_init__(self) -> None:
        sizes = {"batch_size": self.batch_size, "whole_batch_size": self.whole_batch_size}
        check_at_least(1, {"num_ranks": min(self.num_ranks, default=0), **sizes})


def main(argv: list[str]) -> None:
    config = load_config(LossMemoryConfig, argv, __doc__)
    unknown = sorted(set(config.objectives) - set(CASES))
    if unknown:
        raise UserError(f"no objective {unknown[0]!r}: choose among {', '.join(CASES)}")
    results = measure(config)
    for case, of_batch in results.items():
        for batch_size, mib in of_batch.items():
            figures = "  ".join(f"{n} ranks {mib[str(n)]:8.2f} MiB" for n in config.num_ranks)
            print(f"{case:13} {batch_size:>5} images a rank: {figures}")
    print_json(argv, {"mib": results})


def measure(config: LossMemoryConfig) -> dict[str, dict[str, dict[str, float]]]:
    """Objective -> images a rank -> number of ranks -> MiB of the rank that needs most."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        receiver, sender = context.Pipe(duplex=False)
        processes = [
            context.Process(target=_run_rank, args=(config, rank, folder, sender))
            for rank in range(max(config.num_ranks))
        ]
        for process in processes:
            process.start()
        sender.close()
        try:
            results: dict[str, dict[str, dict[str, float]]] = receiver.recv()
        except EOFError as error:
            raise UserError("a rank stopped; what it wrote above says why") from error
        finally:
            for process in processes:
                process.join()
    return results


def _run_rank(config: LossMemoryConfig, rank: int, folder: str, sender: Any) -> None:
    torch.set_num_threads(1)
    comparison.MAX_NUMBERS = config.max_numbers
    store = f"file://{Path(folder) / 'store'}"
    dist.init_process_group("gloo", store, rank=rank, world_size=max(config.num_ranks))
    groups: dict[int, Any] = {n: dist.new_group(range(n)) for n in config.num_ranks}
    results: dict[str, dict[str, dict[str, float]]] = {}
    for case in config.objectives:
        for factor in (1, 2):
            is_whole = case in ("clip", "siglip")
            batch_size = factor * (config.whole_batch_size if is_whole else config.batch_size)
            for number, group in groups.items():
                if rank < number:
                    most = torch.tensor([_peak(config, case, batch_size, Exchange(group))])
                    dist.all_reduce(most, dist.ReduceOp.MAX, group=group)
                    of_batch = results.setdefault(case, {}).setdefault(str(batch_size), {})
                    of_batch[str(number)] = most.item() / 2**20
    dist.barrier()
    if rank == 0:
        sender.send(results)
    dist.destroy_process_group()


def _peak(config: LossMemoryConfig, case: str, batch_size: int, exchange: Exchange) -> int:
    """Bytes."""
    torch.manual_seed(exchange.rank)
    objective = build_case(case, config.embed_dim)
    image, text = draw_features(config, objective, batch_size)

    def step() -> None:
        terms = objective(image, text, exchange, torch.Generator().manual_seed(0))
        torch.stack(list(terms.values())).sum().backward()

    step()  # gradients of parameters and features are there from then on
    image.map(_forget)
    text.map(_forget)
    return peak_tensor_bytes(step)


def build_case(case: str, embed_dim: int) -> Objective:
    """An objective by its name in `CASES`."""
    name, _, form = case.partition(" ")
    assert name in OBJECTIVES
    config = ObjectiveConfig(name)
    config.caft.loss_form = form or "sigmoid"
    return build_objective(config, embed_dim)


def draw_features(
    config: LossMemoryConfig, objective: Objective, batch_size: int
) -> tuple[ImageFeatures, TextFeatures]:
    """Random features, as leaves; those that the objective reads."""
    shapes = {
        "image.pooled": (),
        "image.tokens": (config.num_tokens,),
        "image.fine_pooled": (),
        "image.fine_tokens": (config.num_tokens,),
        "text.whole": (),
        "text.parts": (config.num_texts,),
    }
    leaves: dict[str, Any] = {
        name: torch.randn(batch_size, *shape, config.embed_dim).requires_grad_()
        for name, shape in shapes.items()
        if name in objective.needs
    }
    of_image = {name.split(".")[1]: x for name, x in leaves.items() if name.startswith("image")}
    of_text = {name.split(".")[1]: x for name, x in leaves.items() if name.startswith("text")}
    return ImageFeatures(**of_image), TextFeatures(**of_text)


def _forget(leaf: Tensor) -> Tensor:
    leaf.grad = None
    return leaf


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
