"""Any model to be evaluated, by its path."""

from pathlib import Path

from pretrain.checkpoint import run_folder
from pretrain.evaluate.canopy_encoders import CanopyEncoders
from pretrain.evaluate.config import EvaluateConfig
from pretrain.evaluate.encode import best_device
from pretrain.evaluate.encoders import Encoders
from pretrain.evaluate.open_clip_architectures import PREFIX
from pretrain.evaluate.open_clip_encoders import load_open_clip
from pretrain.inference import RELEASE_CONFIG, InferenceModel, load_for_inference
from recaption.common.config import ConfigError, UserError


def load_encoders(config: EvaluateConfig) -> Encoders:
    """Raises: UserError: it cannot be opened, or a key says nothing to such a model."""
    if not config.model:
        if config.tag:
            raise ConfigError(f"tag={config.tag} says nothing to Canopy's models: leave it out")
        return _load_canopy(config)
    if not config.model.startswith(PREFIX):
        raise ConfigError(f"model={config.model}: leave it out, or give {PREFIX}NAME")
    for key in ("ema", "image_size", "alpha", "num_candidates"):
        if getattr(config, key) != getattr(EvaluateConfig, key):
            raise ConfigError(f"{key} says nothing to a model of open_clip: leave it out")
    encoders = load_open_clip(
        config.model.removeprefix(PREFIX), Path(config.checkpoint), best_device(), config.tag
    )
    encoders.name = config.name or encoders.name
    return encoders


def _load_canopy(config: EvaluateConfig) -> CanopyEncoders:
    inference = load_for_inference(config.checkpoint, config.image_size, config.ema)
    inference.model.to(best_device())
    inference.objective.to(best_device())
    name = config.name or _name(inference)
    return CanopyEncoders(inference, name, config.alpha, config.num_candidates)


def _name(inference: InferenceModel) -> str:
    if (inference.source / RELEASE_CONFIG).is_file():
        return inference.source.resolve().name
    return f"{run_folder(inference.source.resolve()).name}/{inference.source.name}"


def output_folder(config: EvaluateConfig) -> Path:
    """Where results go: beside the run's checkpoints unless the user says otherwise.

    Raises:
        UserError: nothing to write to: a release, whose files are closed by checksums, or weights.
    """
    if config.output:
        return Path(config.output)
    checkpoint = Path(config.checkpoint)
    if config.model or (checkpoint / RELEASE_CONFIG).is_file():
        raise UserError("only a run is written to: give output=FOLDER for the results")
    return checkpoint if (checkpoint / "checkpoints").is_dir() else run_folder(checkpoint)
