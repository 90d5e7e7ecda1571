"""Many pictures at once: of a batch no more is kept than what is returned."""

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pretrain
from pretrain.inference import load_for_inference
from pretrain.release import model as model_module
from recaption.common.config import UserError
from tests.pretrain.trainruns import TINY
from tests.pretrain.untrained import TINY_CLIP, write_run

FLAIR = TINY_CLIP.replace("name: clip", "name: flair").replace("name: whole", "name: diverse")
CAPTIONS = ["A red square. It is on the left.", "Nothing. Else is there."]


@pytest.mark.parametrize(
    ("config", "num_large"),
    [(TINY, 8), (TINY_CLIP, 0), (FLAIR, 4)],
    ids=["caft", "clip", "flair"],
)
def test_tokens_of_a_batch_go_before_those_of_the_next_but_one(
    config: str, num_large: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = pretrain.load(write_run(tmp_path / "run", config))
    generator = np.random.default_rng(0)
    pictures = [
        Image.fromarray(generator.integers(0, 256, (32, 32, 3), np.uint8)) for _ in range(8)
    ]
    expected = model.encode_image(pictures), model.similarity(pictures, CAPTIONS)
    encode, kept, asked = model.inference.model.encode_image, [], []

    def encode_and_watch(*args: Any, **kwargs: Any) -> Any:
        assert sum(tokens() is not None for tokens in kept) <= 1
        features = encode(*args, **kwargs)
        large = [t for t in (features.tokens, features.fine_tokens) if t is not None]
        kept.extend(map(weakref.ref, large[:1]))
        asked.append(features.tokens is not None)
        return features

    monkeypatch.setattr(model_module, "_BATCH_SIZE", 2)
    monkeypatch.setattr(model.inference.model, "encode_image", encode_and_watch)
    torch.testing.assert_close(model.encode_image(pictures), expected[0])
    assert asked == [False] * 4
    torch.testing.assert_close(model.similarity(pictures, CAPTIONS), expected[1])
    assert asked[4:] == [config == FLAIR] * 4 and len(kept) == num_large


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    model = pretrain.load(write_run(tmp_path / "run", TINY_CLIP))
    array = np.zeros((8, 8, 3), np.uint8)
    for images in (array, [array], torch.zeros(3, 8, 8), 3):
        with pytest.raises(UserError, match=r"is no picture: .*Image\.fromarray\(array\)"):
            model.encode_image(images)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="nothing to encode"):
        model.encode_image(np.zeros((0, 8, 8, 3)))  # type: ignore[arg-type]
    captions = np.array(["A red square.", "Nothing."])
    assert torch.equal(model.encode_text(captions), model.encode_text(captions.tolist()))  # type: ignore[arg-type]


def test_a_model_below_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_run(tmp_path / "runs" / "one", TINY_CLIP)
    assert pretrain.load("~/runs/one").inference.source.parents[1] == tmp_path / "runs" / "one"
    assert load_for_inference("~/runs/one").source.parents[1] == tmp_path / "runs" / "one"
    assert pretrain.list_models("~/runs") == []
    with pytest.raises(UserError, match="~one is no folder"):
        pretrain.load("~one")
