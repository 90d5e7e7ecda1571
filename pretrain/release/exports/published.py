"""Weights under the names of the method that published them: `import` in reverse."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from pretrain.checkpoint import WEIGHTS
from pretrain.inference import InferenceModel
from pretrain.release.importers.keys import export_state, import_state
from pretrain.release.importers.methods import METHODS


def write_published(inference: InferenceModel, method: str, folder: Path) -> None:
    """Writes one state dict, and compares what importing it gives.

    Raises:
        ConfigError: the model is not of the method's kind.
        UserError: the method publishes in a type that would round the weights.
    """
    own = inference.state()
    keys = list(METHODS[method].keys(inference.model, inference.objective))
    computed = METHODS[method].computed(inference.model)
    state = export_state(own, keys, computed)
    again = import_state(state, keys, computed, own)
    for name, tensor in own.items():
        if not torch.equal(again[name], tensor):
            raise RuntimeError(f"{name} is another after exporting and importing")
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
