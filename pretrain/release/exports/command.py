"""The command: a trained model, written for another library."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pretrain.inference import InferenceModel, load_for_inference
from pretrain.release.finite import check_finite
from pretrain.release.placing import new_folder
from recaption.common.config import (
    ConfigError,
    check_choice,
    load_config,
    print_json,
)

USAGE = """usage: python -m pretrain export to=FORM release=FOLDER|run=FOLDER output=FOLDER [--json]

Writes the folder, opens it again and compares its features with the model's. FORM is

  open_clip     plain towers for open_clip.create_model_and_transforms("local-dir:FOLDER")
  torch_export  image.pt2 and text.pt2: programs for torch.export.load
  onnx          image.onnx and text.onnx: programs for onnxruntime
  transformers  for AutoModel.from_pretrained, after `import pretrain.release.transformers`
  caft, flair, openai
                model.safetensors under the names of who published the method"""


@dataclass
class ExportConfig:
    """What is exported."""

    to: str = "???"  # form: see above
    output: str = "???"  # folder to write; it must not exist
    release: str = ""  # folder of a release
    run: str = ""  # or of a run, or of one of its checkpoints
    ema: bool = False  # of a run: the running mean of the weights instead of the weights

    def __post_init__(self) -> None:
        check_choice("to", self.to, WRITERS)
        if bool(self.release) == bool(self.run):
            raise ConfigError("give either release=FOLDER or run=FOLDER")


def main(argv: list[str]) -> None:
    config = load_config(ExportConfig, argv, USAGE)
    output = Path(config.output)
    with new_folder(output) as folder:
        inference = load_for_inference(config.release or config.run, ema=config.ema)
        what_to_do = "the run diverged; choose another step, run=RUN/checkpoints/step-..."
        check_finite(inference.state(), inference.weights, what_to_do)
        WRITERS[config.to](inference, folder)
    names = sorted(path.name for path in output.iterdir())
    print(f"exported to {output}: {', '.join(names)}; opened again, it gives the same")
    print_json(argv, {"export": str(output), "to": config.to, "files": names})


# What a form needs is imported when it is asked for: these libraries are slow to import.


def _open_clip(inference: InferenceModel, folder: Path) -> None:
    from pretrain.release.exports.open_clip import write_open_clip

    write_open_clip(inference, folder)


def _torch_export(inference: InferenceModel, folder: Path) -> None:
    from pretrain.release.exports.programs import write_torch_export

    write_torch_export(inference, folder)


def _onnx(inference: InferenceModel, folder: Path) -> None:
    from pretrain.release.exports.programs import write_onnx

    write_onnx(inference, folder)


def _transformers(inference: InferenceModel, folder: Path) -> None:
    from pretrain.release.exports.transformers import write_transformers

    write_transformers(inference, folder)


def _published(method: str, inference: InferenceModel, folder: Path) -> None:
    from pretrain.release.exports.published import write_published

    write_published(inference, method, folder)


#: Name of a form -> what writes a model into a folder.
WRITERS: dict[str, Callable[[InferenceModel, Path], None]] = {
    "open_clip": _open_clip,
    "torch_export": _torch_export,
    "onnx": _onnx,
    "transformers": _transformers,
    "caft": partial(_published, "caft"),
    "flair": partial(_published, "flair"),
    "openai": partial(_published, "openai"),
}
