"""A folder that `open_clip.create_model_and_transforms("local-dir:FOLDER")` opens."""

import copy
import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from pretrain.inference import InferenceModel
from pretrain.models.registry import build_model
from pretrain.objectives.clip import ClipObjective
from pretrain.objectives.siglip import SiglipObjective
from pretrain.release.exports.check import (
    check_equal,
    image_features,
    sample_pictures,
    sample_texts,
    text_features,
)
from pretrain.release.importers.keys import export_state
from pretrain.release.importers.open_clip import open_clip_keys
from pretrain.release.importers.open_clip_config import CONFIG, preprocessing, to_open_clip

WEIGHTS = "open_clip_model.safetensors"


def write_open_clip(inference: InferenceModel, folder: Path) -> None:
    """Writes configuration and weights, and compares what open_clip makes of them.

    Raises:
        ConfigError: the model is not a pair of plain towers with CLIP's or SigLIP's objective.
    """
    description = to_open_clip(inference.config.model)
    state = open_clip_state(inference)
    if isinstance(inference.objective, SiglipObjective):
        description["init_logit_bias"] = state["logit_bias"].item()
    config = {
        "model_cfg": description,
        "preprocess_cfg": preprocessing(inference.config.data.image.resize),
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    _compare(inference, folder)


def open_clip_state(inference: InferenceModel) -> dict[str, Tensor]:
    """open_clip's state dict of the model.

    A bias of the patches, which open_clip has none for, is added to the patches' positions.
    """
    config = copy.deepcopy(inference.config.model)
    config.image.vit.patch_bias = False
    with torch.device("meta"):
        model = build_model(config)
    objective = inference.objective
    state = inference.state()
    bias = state.pop("model.image.patches.bias", None)
    if bias is not None:
        positions = state["model.image.positions"].clone()
        positions[:, 1:] += bias  # the first is the class token's
        state["model.image.positions"] = positions
    keys = list(open_clip_keys(model, objective))
    assert isinstance(objective, ClipObjective)
    # A step of training may leave it outside of the bounds, within which it is used.
    state["objective.log_scale"] = state["objective.log_scale"].clamp(0, objective.max_log_scale)
    return export_state(state, keys, {})


@torch.inference_mode()
def _compare(inference: InferenceModel, folder: Path) -> None:
    name = f"local-dir:{folder}"
    model: Any
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    model.eval()
    pictures = sample_pictures()
    pixels = torch.stack([preprocess(picture) for picture in pictures])
    own_pixels = torch.stack([inference.preprocess(picture) for picture in pictures])
    check_equal("pixels", pixels, own_pixels)
    found = F.normalize(model.encode_image(pixels), dim=1)
    check_equal("image features", found, image_features(inference))
    texts = [text for texts in sample_texts(inference) for text in texts]
    tokens = open_clip.get_tokenizer(name)(texts)
    for row, text in zip(tokens, texts, strict=True):
        own_tokens = torch.tensor(inference.tokenizer.encode(text))
        check_equal("tokens", row[: len(own_tokens)], own_tokens, 0)
    found = F.normalize(model.encode_text(tokens), dim=1)
    check_equal("text features", found, text_features(inference))
    objective = inference.objective
    assert isinstance(objective, ClipObjective)
    scale = objective.scale[0]
    check_equal("logit scale", model.logit_scale.exp() / scale, scale / scale)
