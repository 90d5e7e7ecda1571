"""Both encoders as programs that run without Canopy's code: torch.export, and ONNX."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn import functional as F

from pretrain.data.transforms import IMAGE_MEAN, IMAGE_STD
from pretrain.inference import RELEASE_TOKENIZER, InferenceModel
from pretrain.models.dual import DualEncoder
from pretrain.release.exports.check import (
    check_equal,
    image_features,
    pad,
    sample_pictures,
    sample_texts,
    text_features,
)
from recaption.common.config import UserError

#: Describes the programs' inputs.
INPUTS = "inputs.json"
_MAX_BATCH = 65536


class ImageProgram(nn.Module):
    """(B, 3, size, size) normalised pixels -> (B, D) features of length 1."""

    def __init__(self, model: DualEncoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        features = self.model.encode_image(pixels, with_tokens=False)
        return F.normalize(features.pooled, dim=1)


class TextProgram(nn.Module):
    """(B, K, N) int64 tokens of K texts a caption, 0 behind their ends -> (B, D) of length 1."""

    def __init__(self, model: DualEncoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        parts = self.model.part_text.encode_padded(tokens.flatten(0, 1))
        features = self.model.project_text_features(parts.unflatten(0, (-1, tokens.shape[1])))
        assert features.whole is not None
        return F.normalize(features.whole, dim=1)


def write_torch_export(inference: InferenceModel, folder: Path) -> None:
    """Writes `image.pt2` and `text.pt2` for any batch, and compares them after loading."""
    for name, (program, inputs, expected) in _programs(inference).items():
        path = folder / f"{name}.pt2"
        torch.export.save(program, path)
        loaded = torch.export.load(path).module()
        _compare(name, loaded, inputs, expected)
    _write_inputs(inference, folder)


def write_onnx(inference: InferenceModel, folder: Path) -> None:
    """Writes `image.onnx` and `text.onnx` for any batch, and compares what onnxruntime gives.

    Raises:
        UserError: a package is missing.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  # torch.onnx wants it
    except ModuleNotFoundError as error:
        raise UserError(
            f"to=onnx needs the package {error.name}: pip install 'canopy-vlp[onnx]'"
        ) from None
    for name, (program, inputs, expected) in _programs(inference).items():
        path = folder / f"{name}.onnx"
        exported = torch.onnx.export(program, dynamo=True, external_data=False, verbose=False)
        assert exported is not None
        exported.save(path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (argument,) = session.get_inputs()

        def run(rows: Tensor, session: Any = session, key: str = argument.name) -> Tensor:
            return torch.from_numpy(session.run(None, {key: rows.numpy()})[0])

        _compare(name, run, inputs, expected)
    _write_inputs(inference, folder)


def _programs(
    inference: InferenceModel,
) -> dict[str, tuple[ExportedProgram, Tensor, Tensor]]:
    """Name -> program, inputs to try it on, and the features that the model gives of them."""
    pixels = torch.stack([inference.preprocess(picture) for picture in sample_pictures()])
    length = inference.config.model.text.part.context_length
    tokens = torch.stack(
        [
            pad([inference.tokenizer.encode(text) for text in texts], length)
            for texts in sample_texts(inference)
        ]
    )
    image, text = ImageProgram(inference.model), TextProgram(inference.model)
    return {
        "image": (_export(image, "pixels", pixels[:2]), pixels, image_features(inference)),
        "text": (_export(text, "tokens", tokens[:2]), tokens, text_features(inference)),
    }


def _export(module: nn.Module, argument: str, example: Tensor) -> ExportedProgram:
    # Without gradients no block is kept as one that a backward would compute again.
    with torch.no_grad():
        return torch.export.export(
            module.eval(),
            (example,),
            dynamic_shapes={argument: {0: Dim("batch", min=1, max=_MAX_BATCH)}},
            strict=True,
        )


@torch.no_grad()
def _compare(name: str, program: Any, inputs: Tensor, expected: Tensor) -> None:
    check_equal(f"{name} features", program(inputs), expected)
    check_equal(f"{name} features of one", program(inputs[:1]), expected[:1])


def _write_inputs(inference: InferenceModel, folder: Path) -> None:
    config = inference.config
    size, part = config.model.image.size, config.model.text.part
    is_whole = config.data.captions.name != "parts"
    described = {
        "image": {
            "shape": ["batch", 3, size, size],
            "type": "float32",
            "resize": config.data.image.resize,
            "interpolation": "bicubic",
            "mean": IMAGE_MEAN,
            "std": IMAGE_STD,
        },
        "text": {
            "shape": [
                "batch",
                1 if is_whole else config.data.captions.parts.num_parts,
                part.context_length,
            ],
            "type": "int64",
            "tokenizer": "CLIP's byte pairs; start, text, end, then 0",
            "texts": "the whole caption" if is_whole else "ordered parts of a caption",
        },
    }
    (folder / INPUTS).write_text(json.dumps(described, indent=2) + "\n")
    inference.tokenizer.save(folder / RELEASE_TOKENIZER)
