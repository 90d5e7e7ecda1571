"""Encoders ready for use, from a run, a checkpoint or a release. Needs no training library."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pretrain.checkpoint import (
    COMPLETE,
    CONFIG,
    EMA_WEIGHTS,
    WEIGHTS,
    newest_checkpoint,
    run_folder,
)
from pretrain.checksums import check_checksums
from pretrain.config import PretrainConfig
from pretrain.data.tokens import Tokenizer
from pretrain.data.transforms import evaluation_transform, normalise
from pretrain.models.dual import DualEncoder
from pretrain.models.registry import build_model
from pretrain.objectives.base import Objective
from pretrain.objectives.registry import build_objective
from pretrain.release_config import read_release_config
from recaption.common.config import UserError, check_at_least, read_config
from recaption.common.files import below_home, read_json

RELEASE_CONFIG = "config.json"
RELEASE_TOKENIZER = "tokenizer"


@dataclass
class InferenceModel:
    model: DualEncoder
    objective: Objective
    tokenizer: Tokenizer
    config: PretrainConfig
    source: Path  # the folder that held the weights
    weights: Path  # their file

    def preprocess(self, image: Image.Image) -> Tensor:
        """(3, size, size) normalised, as `encode_image` takes it."""
        transform = evaluation_transform(self.config.data.image, self.config.model.image.size)
        return normalise(transform(image))

    def state(self) -> dict[str, Tensor]:
        """All weights and buffers, under the names of a checkpoint."""
        pair = nn.ModuleDict({"model": self.model, "objective": self.objective})
        state: dict[str, Tensor] = pair.state_dict()
        return state


def load_for_inference(
    path: Path | str,
    image_size: int | None = None,
    ema: bool = False,
    verify: bool | None = None,
) -> InferenceModel:
    """Loads a run (its newest complete checkpoint), a checkpoint or a release, on the CPU.

    Args:
        path: a folder.
        image_size: side of the images in pixels, if not the one trained on; positions are
            interpolated.
        ema: take the running mean of a run's weights instead of the weights.
        verify: None: the files of a release that are read here are compared with their checksums;
            True: all of its files are; False: none.

    Raises:
        UserError: if ``path`` is none of these, or a checkpoint that was never completed, or holds
            no running mean, or a release that was changed, or the model cannot see that size.
    """
    if image_size is not None:
        check_at_least(1, {"image_size": image_size})
    path = below_home(path)
    weights_name = EMA_WEIGHTS if ema else WEIGHTS
    is_release = (path / RELEASE_CONFIG).is_file()
    if verify and not is_release:
        raise UserError(f"{path} is no release: only a release can be verified")
    if is_release:
        if verify is not False:
            read_here = (RELEASE_CONFIG, RELEASE_TOKENIZER, weights_name)
            check_checksums(path, None if verify else read_here)
        tree = read_json(path / RELEASE_CONFIG)
        config = read_release_config(tree, str(path / RELEASE_CONFIG))
        tokenizer = Tokenizer.load(path / RELEASE_TOKENIZER, config.model.text.part.context_length)
        source = path
    else:
        source = newest_checkpoint(path) if (path / "checkpoints").is_dir() else path
        if not (source / COMPLETE).is_file():
            raise UserError(
                f"{path} is neither a run, nor a release, nor a complete checkpoint "
                f"(a checkpoint that was written to the end holds a file {COMPLETE})"
            )
        config = read_config(PretrainConfig, run_folder(source) / CONFIG)
        tokenizer = Tokenizer(config.model.text.part.context_length)
    weights = source / weights_name
    if not weights.is_file():
        why = ""
        if ema:
            why = ": the run was trained without engine.ema_decay"
            if (source / RELEASE_CONFIG).is_file():
                why = ": a release holds one set of weights, leave ema out"
        raise UserError(f"{source} holds no {weights.name}{why}")
    is_resized = image_size is not None and image_size != config.model.image.size
    if image_size is not None and is_resized:
        hierarchical = config.model.image.hierarchical
        hierarchical.position_size = hierarchical.position_size or config.model.image.size
        config.model.image.size = image_size
    model = build_model(config.model)
    objective = build_objective(config.objective, config.model.embed_dim)
    _load(model, objective, weights, is_resized)
    return InferenceModel(model.eval(), objective.eval(), tokenizer, config, source, weights)


def _load(model: DualEncoder, objective: Objective, weights: Path, is_resized: bool) -> None:
    pair = nn.ModuleDict({"model": model, "objective": objective})
    try:
        state = load_file(weights)
        if is_resized:
            model.image.fit_positions(state, "model.image.")
        pair.load_state_dict(state)
    except SafetensorError as error:
        raise UserError(f"{weights} is damaged ({error}): copy it again") from None
    except RuntimeError as error:
        details = "; ".join(line.strip() for line in str(error).splitlines()[1:3])
        raise UserError(f"{weights} does not fit its configuration: {details}") from None
