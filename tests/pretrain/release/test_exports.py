"""Exports: opened by the library that they are for, they give the model's features."""

import json
import shutil
import subprocess
import sys

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import pretrain
from pretrain.checkpoint import WEIGHTS, newest_checkpoint
from pretrain.data.captions import texts_of_caption
from pretrain.inference import load_for_inference
from pretrain.release import main as release
from pretrain.release.exports.check import check_equal, pad, sample_pictures
from pretrain.release.exports.command import main
from pretrain.release.exports.programs import ImageProgram
from pretrain.release.exports.programs import _export as program_of_any_batch
from pretrain.release.importers import open_clip_config
from pretrain.release.importers.command import main as import_command
from pretrain.release.sample import CAPTIONS
from recaption.common.config import ConfigError, UserError
from tests.places import CHECKOUT
from tests.pretrain.trainruns import TINY
from tests.pretrain.untrained import TINY_CLIP, write_run

#: A pooling less than usual: tracing takes time.
TWO_STAGES = ["model.image.hierarchical.depths=[1,1]", "model.image.hierarchical.num_clusters=[4]"]
TEXTS = ["a red kite above a green hill", "On the left stands a tall tree, near a bench"]


def write_noisy_run(folder, *config):
    """Random biases and norms as well: nothing that an export loses may be zero."""
    run = write_run(folder, *config)
    weights = newest_checkpoint(run) / WEIGHTS
    state = load_file(weights)
    torch.manual_seed(1)
    for name, tensor in state.items():
        if name.startswith("model.") and tensor.is_floating_point():
            tensor += 0.05 * torch.randn_like(tensor)
    save_file(state, weights)
    return run


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_noisy_run(tmp_path_factory.mktemp("exports") / "clip", TINY_CLIP)


@pytest.fixture(scope="module")
def caft(tmp_path_factory):
    return write_noisy_run(tmp_path_factory.mktemp("exports") / "caft", TINY, *TWO_STAGES)


def expected_features(run, captions=TEXTS):
    model = pretrain.load(run)
    return model.encode_image(sample_pictures()), model.encode_text(captions)


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["data.image.resize=shortest", "objective.name=siglip"],
        [
            "model.image.vit.activation=quick_gelu",
            "model.text.part.activation=quick_gelu",
            "model.image.vit.pre_norm=true",
            "model.image.vit.norm_eps=1e-5",
            "model.image.vit.patch_bias=false",
        ],
    ],
    ids=["default", "siglip", "quick_gelu"],
)
def test_open_clip_opens_the_folder(settings, tmp_path):
    run = write_noisy_run(tmp_path / "run", TINY_CLIP, *settings)
    folder = tmp_path / "exported"
    main(["to=open_clip", f"run={run}", f"output={folder}"])
    assert {path.name for path in folder.iterdir()} == {
        "open_clip_config.json",
        "open_clip_model.safetensors",
    }
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    with torch.inference_mode():
        pixels = torch.stack([preprocess(picture) for picture in sample_pictures()])
        images = model.eval().encode_image(pixels, normalize=True)
        texts = model.encode_text(tokenizer(TEXTS), normalize=True)
    expected = expected_features(run)
    torch.testing.assert_close(images, expected[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(texts, expected[1], rtol=0, atol=1e-5)
    assert (model.logit_bias is not None) == ("objective.name=siglip" in settings)


def test_from_open_clip_to_open_clip(clip, tmp_path):
    """Imported by its folder's own description and exported again: the same bytes."""
    first, run, second = (tmp_path / name for name in ("first", "run", "second"))
    command = ["-m", "pretrain", "export", "to=open_clip", f"run={clip}", f"output={first}"]
    subprocess.run([sys.executable, *command], cwd=CHECKOUT, check=True)
    weights = first / "open_clip_model.safetensors"
    architecture = f"architecture=local-dir:{first}"
    import_command([f"weights={weights}", f"output={run}", "method=open_clip", architecture])
    imported = load_for_inference(run).config.data.image
    assert imported.resize == "squash"  # as the folder says, and not as is usual
    main(["to=open_clip", f"run={run}", f"output={second}"])
    for path in first.iterdir():
        assert (second / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_run_that_diverged_is_neither_exported_nor_released(number, tmp_path):
    run = write_run(tmp_path / "run", TINY_CLIP)
    weights = newest_checkpoint(run) / WEIGHTS
    state = load_file(weights)
    state["model.part_text.norm.bias"][3] = number
    save_file(state, weights)
    message = rf"{weights} holds NaN or infinity in model\.part_text\.norm\.bias: the run diverged"
    for command, arguments in ((main, ["to=open_clip"]), (release, ["data=X"])):
        with pytest.raises(UserError, match=message):
            command([f"run={run}", f"output={tmp_path / 'output'}", *arguments])
    assert [*tmp_path.iterdir()] == [run]


def test_published_names_there_and_back(tmp_path, golden):
    state = golden("flair/model_tiny").group("param.")
    save_file(state, tmp_path / "flair.safetensors")
    (tmp_path / "tiny.yaml").write_text(TINY_FLAIR)
    run, exported = tmp_path / "run", tmp_path / "exported"
    settings = [str(tmp_path / "tiny.yaml"), "method=flair", f"output={run}"]
    import_command([*settings, f"weights={tmp_path / 'flair.safetensors'}"])
    main(["to=flair", f"run={run}", f"output={exported}"])
    found = load_file(exported / WEIGHTS)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
    with pytest.raises(ConfigError, match=r"CAFT wants model\.image\.name=hierarchical"):
        main(["to=caft", f"run={run}", f"output={tmp_path / 'other'}"])
    with pytest.raises(ConfigError, match=r"wants objective\.name=clip or siglip"):
        main(["to=open_clip", f"run={run}", f"output={tmp_path / 'other'}"])
    assert not (tmp_path / "other").exists()


TINY_FLAIR = """
model:
  embed_dim: 32
  image:
    name: vit
    size: 64
    vit:
      {width: 48, num_heads: 4, depth: 2, patch_size: 16, pre_norm: true, patch_bias: false,
       norm_eps: 1e-5}
  text:
    name: plain
    part: {width: 48, num_layers: 2, num_heads: 4, context_length: 16, vocab_size: 512}
"""


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (TINY, [], "cannot hold model.image.name=hierarchical: it knows one grid of patches"),
        (
            TINY_CLIP,
            [
                "model.text.name=part_whole",
                "model.text.whole.num_heads=2",
                "data.captions.name=parts",
            ],
            "cannot hold model.text.name=part_whole: it reads a caption as one text",
        ),
        (TINY_CLIP, ["model.image.vit.pool=mean"], "cannot hold model.image.vit.pool=mean"),
        (TINY_CLIP, ["model.text.part.activation=quick_gelu"], "cannot hold two activations"),
    ],
)
def test_what_open_clip_cannot_hold(config, settings, message, tmp_path):
    run = write_run(tmp_path / "run", config, *settings)
    with pytest.raises(ConfigError, match=message):
        main(["to=open_clip", f"run={run}", f"output={tmp_path / 'exported'}"])
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_mistakes(clip, tmp_path):
    with pytest.raises(ConfigError, match="give either release=FOLDER or run=FOLDER"):
        main(["to=open_clip", f"output={tmp_path / 'exported'}"])
    with pytest.raises(ConfigError, match="to is 'openclip'; choose open_clip or"):
        main(["to=openclip", f"run={clip}", f"output={tmp_path / 'exported'}"])
    with pytest.raises(UserError, match="is there already"):
        main(["to=open_clip", f"run={clip}", f"output={tmp_path}"])
    with pytest.raises(UserError, match="neither a run, nor a release"):
        main(["to=open_clip", f"release={tmp_path}", f"output={tmp_path / 'exported'}"])


def test_an_export_that_differs_is_not_written(clip, tmp_path, monkeypatch):
    monkeypatch.setattr(open_clip_config, "IMAGE_MEAN", (0.5, 0.5, 0.5))
    with pytest.raises(RuntimeError, match="other pixels than the model"):
        main(["to=open_clip", f"run={clip}", f"output={tmp_path / 'exported'}"])
    assert not list(tmp_path.iterdir())
    with pytest.raises(RuntimeError, match="differ by up to nan"):
        check_equal("features", torch.tensor([torch.nan]), torch.ones(1))


def test_programs_run_without_canopy(caft, tmp_path):
    """Superpixels, poolings and the parts of captions are in them, for any batch."""
    folder, found = tmp_path / "programs", tmp_path / "found"
    main(["to=torch_export", f"run={caft}", f"output={folder}"])
    inference = load_for_inference(caft)
    config = inference.config.data.captions
    described = json.loads((folder / "inputs.json").read_text())
    _, num_texts, length = described["text"]["shape"]
    assert num_texts == config.parts.num_parts
    texts = [texts_of_caption(caption, config) for caption in CAPTIONS]
    inputs = {
        "image": torch.stack([inference.preprocess(picture) for picture in sample_pictures()]),
        "text": torch.stack(
            [pad([inference.tokenizer.encode(t) for t in k], length) for k in texts]
        ),
    }
    save_file(inputs, tmp_path / "inputs")
    program = f"""
import sys
sys.modules["pretrain"] = None
import torch
from safetensors.torch import load_file, save_file
found = {{}}
for name, rows in load_file("{tmp_path}/inputs").items():
    found[name] = torch.export.load("{folder}/" + name + ".pt2").module()(rows).detach()
save_file(found, "{found}")
"""
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    images, texts = expected_features(caft, CAPTIONS)
    features = load_file(found)
    torch.testing.assert_close(features["image"], images, rtol=0, atol=1e-5)
    torch.testing.assert_close(features["text"], texts, rtol=0, atol=1e-5)


def test_superpixels_in_onnx_choose_as_torch_does_but_for_rounding(tmp_path):
    """Of equal choices another library may take the other one: docs/exports.md."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    superpixels = "model.image.hierarchical.superpixels"
    slic = [f"{superpixels}.name=slic", f"{superpixels}.slic.num_iterations=1"]
    inference = load_for_inference(write_noisy_run(tmp_path / "run", TINY, *TWO_STAGES, *slic))
    rng = np.random.default_rng(1)
    scenes = np.empty((100, 32, 32, 3), np.uint8)
    for scene in scenes:
        scene[:] = rng.integers(0, 256, 3)
        for top, left, height, width in rng.integers(4, 20, (4, 4)):
            scene[top : top + height, left : left + width] = rng.integers(0, 256, 3)
    pixels = torch.stack([inference.preprocess(Image.fromarray(scene)) for scene in scenes])
    program = ImageProgram(inference.model)
    with torch.inference_mode():
        expected = program(pixels)
    exported = torch.onnx.export(
        program_of_any_batch(program, "pixels", pixels[:2]), dynamo=True, verbose=False
    )
    exported.save(tmp_path / "image.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "image.onnx")
    (found,) = session.run(None, {"pixels": pixels.numpy()})
    differences = (torch.from_numpy(found) - expected).abs().amax(dim=1)
    assert (differences > 1e-5).sum() <= 5 and differences.max() < 0.05


def test_onnx(clip, tmp_path, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    folder = tmp_path / "programs"
    main(["to=onnx", f"run={clip}", f"output={folder}"])
    session = onnxruntime.InferenceSession(folder / "image.onnx")
    inference = load_for_inference(clip)
    pixels = torch.stack([inference.preprocess(picture) for picture in sample_pictures()])
    (found,) = session.run(None, {"pixels": pixels.numpy()})
    expected, _ = expected_features(clip)
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=1e-5)
    shutil.rmtree(folder)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match="to=onnx needs the package onnxruntime"):
        main(["to=onnx", f"run={clip}", f"output={folder}"])
    assert not folder.exists()
