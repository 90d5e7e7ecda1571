"""A folder that transformers' `AutoModel` opens, after `import pretrain.release.transformers`."""

import copy
from pathlib import Path
from typing import Any

import torch

from pretrain.config import PretrainConfig
from pretrain.data.config import DataConfig
from pretrain.inference import InferenceModel
from pretrain.release.exports.check import (
    check_equal,
    image_features,
    sample_pictures,
    text_features,
)
from pretrain.release.inputs import quiet_of_cut
from pretrain.release.sample import CAPTIONS
from recaption.common.config import UserError, to_dict


def write_transformers(inference: InferenceModel, folder: Path) -> None:
    """Writes configuration, weights, processor and tokenizer, and compares what they give.

    Raises:
        UserError: transformers is not installed.
    """
    try:
        from transformers import AutoModel, AutoProcessor
    except ModuleNotFoundError:
        raise UserError("to=transformers needs the package: pip install transformers") from None
    from pretrain.release.transformers import CanopyConfig, CanopyModel, CanopyProcessor

    config = CanopyConfig(to_dict(_encoders_only(inference.config)))
    model = CanopyModel(config)
    model.model.load_state_dict(inference.model.state_dict())
    model.objective.load_state_dict(inference.objective.state_dict())
    model.save_pretrained(folder)
    CanopyProcessor(config.canopy, inference.tokenizer.path).save_pretrained(folder)
    opened: Any = AutoModel.from_pretrained(folder)
    with torch.inference_mode(), quiet_of_cut():
        inputs = AutoProcessor.from_pretrained(folder)(text=CAPTIONS, images=sample_pictures())
        found = opened(**inputs)
    check_equal("image features", found.image_embeds, image_features(inference))
    check_equal("text features", found.text_embeds, text_features(inference))


def _encoders_only(config: PretrainConfig) -> PretrainConfig:
    """Without what only training knows, such as where things lay."""
    model = copy.deepcopy(config.model)
    network = model.image.hierarchical.superpixels.spixelfcn
    network.weights = Path(network.weights).name
    data = DataConfig("unknown", captions=config.data.captions, image=config.data.image)
    return PretrainConfig(run="exported", model=model, objective=config.objective, data=data)
