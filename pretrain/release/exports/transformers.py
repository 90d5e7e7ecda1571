"""A folder that transformers' `AutoModel` opens, after `import pretrain.release.transformers`."""

from pathlib import Path
from typing import Any

import torch

from pretrain.inference import InferenceModel
from pretrain.release.exports.check import (
    check_equal,
    image_features,
    sample_pictures,
    text_features,
)
from pretrain.release.inputs import quiet_of_cut
from pretrain.release.sample import CAPTIONS
from pretrain.release_config import encoders_tree
from recaption.common.config import UserError


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

    config = CanopyConfig(encoders_tree(inference.config))
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
