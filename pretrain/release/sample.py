"""Outputs on fixed inputs, kept in a release: does it give here what it gave where it was made?

``python -m pretrain.release.sample FOLDER`` opens a release, compares the checksums of all of its
files, encodes the pictures and captions of its folder `samples`, and compares.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from pretrain.release.inputs import quiet_of_cut
from pretrain.release.model import Picture, ReleasedModel, load
from recaption.common.config import UserError, print_json, run_command
from recaption.common.files import read_json

USAGE = "usage: python -m pretrain.release.sample FOLDER [--json]"
SAMPLES = "samples"
#: How far an output may be from the stored one, as a share of the largest stored number if that
#: is above 1. Features have length 1 and heat maps end at 1.
TOLERANCE = 1e-5
_CAPTIONS = "captions.json"
_OUTPUTS = "outputs.safetensors"

CAPTIONS = (
    "A red kite flies above a green hill. Two children hold its string. The sky is cloudy.",
    "A cat sleeps.",
    "On the left stands a tall tree. A bench is under it. A dog runs to the right. Behind it lies "
    "a lake. A small boat is on the lake. The sun sets over the hills far away.",
)
_NUM_PICTURES = 3


def write_samples(folder: Path, model: ReleasedModel) -> None:
    """Writes drawn pictures, `CAPTIONS`, and what `model` gives for them, into a new folder.

    `outputs.safetensors` holds `image` (3, D) and `text` (3, D) features, their `similarity`
    (3, 3) and `localise`, the heat map (80, 96) of the second caption over the first picture.
    """
    folder.mkdir()
    pictures = [_picture(number) for number in range(_NUM_PICTURES)]
    for number, picture in enumerate(pictures):
        picture.save(folder / _picture_name(number))
    (folder / _CAPTIONS).write_text(json.dumps(CAPTIONS, indent=1) + "\n")
    # By bytes: `save_file` makes files that only their owner may read.
    (folder / _OUTPUTS).write_bytes(save(sample_outputs(model, pictures, CAPTIONS)))


def check_samples(folder: Path, model: ReleasedModel) -> dict[str, float]:
    """By how much at most each output of `model` differs from that stored in a release's folder.

    Raises:
        UserError: a sample is missing or damaged, or an output differs by more than `TOLERANCE`.
    """
    stored = folder / SAMPLES / _OUTPUTS
    if not stored.is_file():
        raise UserError(f"{folder} holds no {SAMPLES}/{_OUTPUTS}: there is nothing to compare with")
    try:
        expected = load_file(stored)
    except SafetensorError as error:
        raise UserError(f"{stored} is damaged ({error}): copy it again") from None
    pictures = [folder / SAMPLES / _picture_name(number) for number in range(_NUM_PICTURES)]
    found = sample_outputs(model, pictures, _read_captions(folder / SAMPLES / _CAPTIONS))
    for name in sorted(expected.keys() ^ found.keys()):
        what = "lacks the output" if name in found else "has the unknown output"
        raise UserError(f"{stored} {what} `{name}`: release the run again")
    differences = {}
    for name, tensor in expected.items():
        output = found[name].cpu()
        if (output.shape, output.dtype) != (tensor.shape, tensor.dtype):
            raise UserError(
                f"{stored} holds `{name}` as {_kind(tensor)}, and the model gives {_kind(output)}: "
                "release the run again"
            )
        differences[name] = (output - tensor).abs().max().item()
        allowed = TOLERANCE * max(1.0, tensor.abs().max().item())
        if not differences[name] <= allowed:  # nor where it is no number
            raise UserError(
                f"{folder} gives another `{name}` than where it was made: they differ by up to "
                f"{differences[name]:.2g}, and {allowed:.2g} is allowed"
            )
    return differences


def _kind(tensor: Tensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)}"


def _read_captions(path: Path) -> list[str]:
    captions = read_json(path) if path.is_file() else None
    texts = captions if isinstance(captions, list) else []
    texts = [text for text in texts if isinstance(text, str) and text.strip()]
    if len(texts) != len(CAPTIONS):
        raise UserError(f"{path} does not hold {len(CAPTIONS)} captions: copy it again")
    return texts


def sample_outputs(
    model: ReleasedModel, pictures: Sequence[Picture], captions: Sequence[str]
) -> dict[str, Tensor]:
    """Every call of a released model."""
    with quiet_of_cut():  # a small model's context is short
        return {
            "image": model.encode_image(pictures),
            "text": model.encode_text(captions),
            "similarity": model.similarity(pictures, captions),
            "localise": torch.from_numpy(model.localise(pictures[0], captions[1])),
        }


def _picture(number: int) -> Image.Image:
    """Smooth colours with a block of noise, 96 x 80, the same wherever it is drawn."""
    rows, columns = np.mgrid[0:80, 0:96] / 96
    channels = [np.sin((number + 2) * rows + k * columns) for k in range(3)]
    pixels = np.stack(channels, axis=-1) * 100 + 128
    noise = np.random.default_rng(number).uniform(-80, 80, (32, 32, 3))
    pixels[24:56, 32:64] += noise
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _picture_name(number: int) -> str:
    return f"picture_{number}.png"


def main(argv: list[str]) -> None:
    folders = [argument for argument in argv if not argument.startswith("-")]
    if len(folders) != 1:
        raise UserError(USAGE)
    folder = Path(folders[0])
    differences = check_samples(folder, load(folder, verify=True))
    print(f"{folder} is whole and gives what it gave where it was made; largest differences:")
    for name, difference in differences.items():
        print(f"  {name:<12}{difference:.1e}")
    print_json(argv, differences)


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
