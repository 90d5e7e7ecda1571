"""The command: a published checkpoint becomes a run that can be evaluated and released."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, nn

from pretrain.checkpoint import COMPLETE, CONFIG, WEIGHTS, checkpoint_folder
from pretrain.config import PretrainConfig
from pretrain.data.captions import CaptionsConfig
from pretrain.data.config import DataConfig
from pretrain.data.transforms import ImageConfig
from pretrain.models.published_weights import read_state_dict
from pretrain.models.registry import ModelConfig, build_model
from pretrain.objectives.registry import ObjectiveConfig, build_objective
from pretrain.release.importers.keys import import_state
from pretrain.release.importers.methods import METHODS
from pretrain.release.importers.open_clip_config import named_model, named_resize
from pretrain.release.importers.openai import openai_model
from pretrain.release.importers.torchscript import is_torchscript, read_torchscript
from pretrain.release.placing import check_absent, new_folder
from recaption.common.config import (
    ConfigError,
    check_choice,
    load_config,
    print_json,
    write_config,
)

USAGE = """usage: python -m pretrain import [MODEL.yaml] weights=FILE output=RUN [method=M] [--json]

Writes the run folder RUN with one checkpoint, which `evaluate`, `release` and `export` take as any
other. What model the weights are of:

  method=caft       MODEL.yaml, as configs/model/caft_b_published.yaml
  method=flair      MODEL.yaml, as configs/model/flair_b.yaml
  method=open_clip  architecture=ViT-B-32, any name that open_clip knows, or MODEL.yaml
  method=openai     the weights tell it"""


@dataclass
class ImportConfig:
    """What is imported."""

    # the published state dict: .safetensors, a file of torch.save, or OpenAI's TorchScript archive
    weights: str = "???"
    output: str = "???"  # run folder to write; it must not exist
    method: str = "caft"  # whose names and objective: caft, flair, open_clip or openai
    model: ModelConfig = field(default_factory=ModelConfig)
    # of open_clip: a name that it knows (ViT-B-32), or local-dir:FOLDER; empty: as model.* says
    architecture: str = ""

    def __post_init__(self) -> None:
        check_choice("method", self.method, METHODS)
        if self.architecture and self.method != "open_clip":
            raise ConfigError(f"architecture={self.architecture} goes with method=open_clip alone")


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
    check_absent(output)  # before the work
    published, method = read_published(config.weights), METHODS[config.method]
    model_config = _model_config(config, published)
    objective_config = ObjectiveConfig(method.objective(published))
    model = build_model(model_config)
    objective = build_objective(objective_config, model_config.embed_dim)
    pair = nn.ModuleDict({"model": model, "objective": objective})
    computed = method.computed(model)
    if method.is_lenient:
        computed = {name: tensor for name, tensor in computed.items() if name in published}
    state = import_state(published, method.keys(model, objective), computed, pair.state_dict())
    _raise_bound(objective_config, state)
    run = PretrainConfig(
        run=str(output),
        model=model_config,
        objective=objective_config,
        data=DataConfig(
            train="unknown",
            captions=CaptionsConfig(method.captions),
            image=ImageConfig(named_resize(config.architecture) or method.resize),
        ),
    )
    with new_folder(output) as aside:
        folder = checkpoint_folder(aside, 0)
        folder.mkdir(parents=True)
        write_config(run, aside / CONFIG)
        save_file(state, folder / WEIGHTS)
        (folder / COMPLETE).write_text("")
    return len(published)


def _raise_bound(config: ObjectiveConfig, state: Mapping[str, Tensor]) -> None:
    """Scores are scaled as published, and exported so, where that is above our own bound."""
    own = getattr(config, config.name)
    log_scale = state.get("objective.log_scale")
    if log_scale is not None:
        own.max_scale = max(own.max_scale, log_scale.double().exp().item())


def read_published(path: str) -> dict[str, Tensor]:
    """Tensors by their published names, on the CPU. Raises: UserError: see `read_state_dict`."""
    if is_torchscript(Path(path)):
        return read_torchscript(Path(path))
    return read_state_dict(path)


def _model_config(config: ImportConfig, published: dict[str, Tensor]) -> ModelConfig:
    if config.method == "openai":
        if config.model != ModelConfig():
            raise ConfigError("the weights of method=openai tell their sizes: leave model.* out")
        return openai_model(published)
    if config.architecture:
        if config.model != ModelConfig():
            raise ConfigError(f"architecture={config.architecture} and model.*: give one of them")
        return named_model(config.architecture)
    return config.model
