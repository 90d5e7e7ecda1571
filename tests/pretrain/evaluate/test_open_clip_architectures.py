"""What open_clip builds, from a name and a tag or from a file, and the pictures it is given."""

import copy
import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import requests
import torch
from huggingface_hub import constants
from open_clip import pretrained
from requests.adapters import HTTPAdapter
from safetensors.torch import load_file
from transformers.utils import hub

from pretrain.evaluate.config import EvaluateConfig
from pretrain.evaluate.loading import load_encoders
from pretrain.evaluate.open_clip_architectures import find_architecture
from pretrain.evaluate.open_clip_encoders import load_open_clip
from pretrain.inference import load_for_inference
from pretrain.release.exports.check import image_features, sample_pictures
from pretrain.release.exports.command import main as export
from recaption.common.config import ConfigError, UserError
from recaption.common.files import sha256_file
from tests.pretrain.evaluate.benchmarks.models import TINY_OPEN_CLIP, write_open_clip
from tests.pretrain.untrained import TINY_CLIP, write_run

CPU = torch.device("cpu")
HALF = (0.5, 0.5, 0.5)
SQUASHED = {"mean": HALF, "std": HALF, "interpolation": "bilinear", "resize_mode": "squash"}

TRUSTING = {"hf_tokenizer_name": "lab/own", "tokenizer_kwargs": {"trust_remote_code": True}}


def publish(monkeypatch: pytest.MonkeyPatch, of_tag: dict[str, dict[str, Any]]) -> None:
    """As if open_clip knew such weights of the tiny model."""
    monkeypatch.setitem(pretrained._PRETRAINED, "canopy-tiny", of_tag)


def test_a_tag_says_how_pictures_are_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, weights = write_open_clip(tmp_path)
    publish(monkeypatch, {"openai": {**SQUASHED, "quick_gelu": True}, "other": SQUASHED})
    encoders = load_open_clip("canopy-tiny", weights, CPU, "openai")
    settings = {f"image_{key}": value for key, value in SQUASHED.items()}
    model, _, prepare = open_clip.create_model_and_transforms(
        "canopy-tiny", force_quick_gelu=True, **settings
    )
    model.load_state_dict(load_file(weights))
    pixels = torch.stack([prepare(picture) for picture in sample_pictures()])
    assert torch.equal(
        torch.stack([encoders.preprocess(picture) for picture in sample_pictures()]), pixels
    )
    with torch.no_grad():
        expected = model.eval().encode_image(pixels)
    torch.testing.assert_close(encoders.encode_images(list(pixels)).pooled, expected)
    described = encoders.describe()
    assert described["preprocess"] == SQUASHED
    assert (described["tag"], described["quick_gelu"]) == ("openai", True)


def test_a_tag_is_asked_for_where_it_matters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_open_clip(tmp_path)
    many = {f"t{number}": {**SQUASHED, "quick_gelu": True} for number in range(7)}
    publish(monkeypatch, {**many, "plain": SQUASHED})
    with pytest.raises(UserError) as caught:
        find_architecture("canopy-tiny")
    assert str(caught.value).endswith(
        "give tag=NAME of yours, or tag=none for open_clip's defaults if you trained them: "
        "t0, t1, t2, t3, t4 and 2 others (quick_gelu=True); plain (quick_gelu=False)"
    )
    with pytest.raises(UserError, match="no such weights of canopy-tiny; did you mean plain"):
        find_architecture("canopy-tiny", "plein")
    own = find_architecture("canopy-tiny", "none")
    assert (own.preprocess, own.quick_gelu) == ({}, False)
    publish(monkeypatch, many)
    agreed = find_architecture("canopy-tiny")
    assert (agreed.preprocess, agreed.quick_gelu) == (SQUASHED, True)


@pytest.mark.parametrize(
    ("model", "tag", "resize", "quick_gelu"),
    [
        ("ViT-B-16-SigLIP", "", "squash", False),
        ("ViT-B-16", "openai", "shortest", True),
        ("ViT-B-16", "datacomp_xl_s13b_b90k", "shortest", False),
        ("RN50", "", "shortest", True),
        ("ViT-B-32-quickgelu", "openai", "shortest", True),
    ],
)
def test_published_weights(model: str, tag: str, resize: str, quick_gelu: bool) -> None:
    found = find_architecture(model, tag)
    assert (found.preprocess["resize_mode"], found.quick_gelu) == (resize, quick_gelu)


def test_keys_of_other_models(tmp_path: Path) -> None:
    config, weights = write_open_clip(tmp_path)
    for model, key, message in (
        (f"open_clip:{config}", {"alpha": 0.0}, "alpha says nothing to a model of open_clip"),
        (
            f"open_clip:{config}",
            {"tag": "openai"},
            "tag=openai says nothing to a model that .*json",
        ),
        ("", {"tag": "openai"}, "tag=openai says nothing to Canopy's models"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_encoders(EvaluateConfig(checkpoint=str(weights), model=model, **key))


def test_a_folder_of_open_clip_s_layout(tmp_path: Path) -> None:
    run, folder = write_run(tmp_path / "run", TINY_CLIP), tmp_path / "exported"
    export(["to=open_clip", f"run={run}", f"output={folder}"])
    config = folder / "open_clip_config.json"
    encoders = load_open_clip(str(config), folder / "open_clip_model.safetensors", CPU)
    inference = load_for_inference(run)
    pixels = [encoders.preprocess(picture) for picture in sample_pictures()]
    for found, picture in zip(pixels, sample_pictures(), strict=True):
        torch.testing.assert_close(found, inference.preprocess(picture))
    pooled = torch.nn.functional.normalize(encoders.encode_images(pixels).pooled, dim=1)
    torch.testing.assert_close(pooled, image_features(inference), rtol=0, atol=1e-5)
    described = encoders.describe()
    assert described["preprocess"]["resize_mode"] == "squash"  # not open_clip's default
    assert described["architecture"] == "exported"
    assert described["config"] == {"file": config.name, "sha256": sha256_file(config)}


def test_files_of_one_name_are_kept_apart(tmp_path: Path) -> None:
    wide: dict[str, Any] = copy.deepcopy(TINY_OPEN_CLIP)
    wide["embed_dim"] = 8
    known = open_clip.get_model_config("ViT-B-32")
    paths = [tmp_path / folder / "ViT-B-32.json" for folder in ("a", "b")]
    for path, description in zip(paths, (TINY_OPEN_CLIP, wide), strict=True):
        path.parent.mkdir()
        path.write_text(json.dumps(description))
    names = [find_architecture(str(path)).registered for path in paths]
    assert [open_clip.get_model_config(name)["embed_dim"] for name in names] == [16, 8]
    assert open_clip.get_model_config("ViT-B-32") == known


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1], "no model configuration of open_clip: it must hold embed_dim"),
        ({"model_cfg": 3}, "no model configuration"),
        (TINY_OPEN_CLIP | {"text_cfg": None}, "no model configuration"),
        ({"model_cfg": TINY_OPEN_CLIP, "preprocess_cfg": 1}, "preprocess_cfg must hold keys"),
        (TINY_OPEN_CLIP | {"embed_dim": "much"}, "cannot build wrong"),
        (TINY_OPEN_CLIP | {"vision_cfg": {"depth": 3}}, "cannot build wrong: .*depth"),
        ({"model_cfg": TINY_OPEN_CLIP, "preprocess_cfg": {"mean": [1, 2]}}, "cannot build wrong"),
    ],
)
def test_files_that_describe_no_model(content: Any, message: str, tmp_path: Path) -> None:
    _, weights = write_open_clip(tmp_path)
    config = tmp_path / "wrong.json"
    config.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message) as caught:
        load_open_clip(str(config), weights, CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["hf_tokenizer_name", "hf_model_name"])
def test_nothing_is_fetched(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(_: HTTPAdapter, request: requests.PreparedRequest, **__: Any) -> None:
        asked.append(request.url)
        raise requests.ConnectionError("no network in tests")

    monkeypatch.setattr(HTTPAdapter, "send", refuse)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "_is_offline_mode", False)
    _, weights = write_open_clip(tmp_path)
    config = tmp_path / "remote.json"
    config.write_text(
        json.dumps(TINY_OPEN_CLIP | {"text_cfg": TINY_OPEN_CLIP["text_cfg"] | {key: "lab/none"}})
    )
    with pytest.raises(UserError, match="remote needs lab/none of the model hub"):
        load_open_clip(str(config), weights, CPU)
    assert asked == []
    assert (constants.HF_HUB_OFFLINE, hub._is_offline_mode) == (False, False)


def test_no_code_of_a_tokenizer_is_run(tmp_path: Path) -> None:
    _, weights = write_open_clip(tmp_path)
    folder, trace = tmp_path / "folder", tmp_path / "was-here"
    folder.mkdir()
    written_in = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["code.Own", None]}}
    for name, content in (
        ("tokenizer_config.json", written_in),
        ("own.json", TINY_OPEN_CLIP | {"text_cfg": TINY_OPEN_CLIP["text_cfg"] | TRUSTING}),
    ):
        (folder / name).write_text(json.dumps(content))
    (folder / "code.py").write_text(f"open({str(trace)!r}, 'w')\nclass Own: pass\n")
    with pytest.raises(UserError, match="open_clip cannot build own"):
        load_open_clip(str(folder / "own.json"), weights, CPU)
    assert not trace.exists()
