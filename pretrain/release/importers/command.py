"""The command: a published checkpoint becomes a run that can be evaluated and released."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from safetensors.torch import save_file
from torch import Tensor, nn

from pretrain.checkpoint import COMPLETE, CONFIG, WEIGHTS, checkpoint_folder
from pretrain.config import PretrainConfig
from pretrain.data.captions import CaptionsConfig
from pretrain.data.config import DataConfig
from pretrain.models.dual import DualEncoder
from pretrain.models.published_weights import read_state_dict
from pretrain.models.registry import ModelConfig, build_model
from pretrain.objectives.registry import ObjectiveConfig, build_objective
from pretrain.release.importers.caft import caft_computed, caft_keys
from pretrain.release.importers.flair import flair_keys
from pretrain.release.importers.keys import Key, import_state
from recaption.common.config import (
    UserError,
    check_choice,
    load_config,
    print_json,
    write_config,
)

USAGE = """usage: python -m pretrain import MODEL.yaml weights=FILE output=RUN [method=...] [--json]

Writes the run folder RUN with one checkpoint, which `evaluate` and `release` take as any other:

  configs/model/caft_b_published.yaml   method=caft, the base size of the CAFT authors
  configs/model/flair_b.yaml            method=flair"""


class Method(NamedTuple):
    """How a method's checkpoints are read."""

    keys: Callable[[DualEncoder], Iterable[Key]]
    computed: Callable[[DualEncoder], dict[str, Tensor]]
    captions: str  # how captions are read in evaluation


METHODS = {
    "caft": Method(caft_keys, caft_computed, "parts"),
    "flair": Method(flair_keys, lambda _: {}, "diverse"),
}


@dataclass
class ImportConfig:
    """What is imported."""

    weights: str = "???"  # the published state dict: .safetensors, or a file of torch.save
    output: str = "???"  # run folder to write; it must not exist
    method: str = "caft"  # whose names and objective: caft or flair
    model: ModelConfig = field(default_factory=ModelConfig)

    def __post_init__(self) -> None:
        check_choice("method", self.method, METHODS)


def main(argv: list[str]) -> None:
    config = load_config(ImportConfig, argv, USAGE)
    num_tensors = import_checkpoint(config)
    print(f"imported {num_tensors} tensors, none left over, to the run {config.output}")
    print_json(argv, {"run": config.output, "num_tensors": num_tensors})


def import_checkpoint(config: ImportConfig) -> int:
    """Writes the run; returns how many published tensors went into it.

    Raises:
        UserError: the weights are not those of the configured model, or the run is there.
    """
    output = Path(config.output)
    if output.exists():
        raise UserError(f"{output} is there already: give another folder")
    published = read_state_dict(config.weights)
    model = build_model(config.model)
    objective = build_objective(ObjectiveConfig(config.method), config.model.embed_dim)
    pair = nn.ModuleDict({"model": model, "objective": objective})
    method = METHODS[config.method]
    state = import_state(published, method.keys(model), method.computed(model), pair.state_dict())
    run = PretrainConfig(
        run=str(output),
        model=config.model,
        objective=ObjectiveConfig(config.method),
        data=DataConfig(train="unknown", captions=CaptionsConfig(method.captions)),
    )
    folder = checkpoint_folder(output, 0)
    folder.mkdir(parents=True)
    write_config(run, output / CONFIG)
    save_file(state, folder / WEIGHTS)
    (folder / COMPLETE).write_text("")
    return len(published)
