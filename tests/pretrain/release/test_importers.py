"""Published state dicts: all keys used, the same tensors back, and a model that works."""

import copy
import json

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import pretrain
from pretrain.checkpoint import find_checkpoint
from pretrain.evaluate import main as evaluate
from pretrain.inference import load_for_inference
from pretrain.models.registry import ModelConfig, build_model
from pretrain.objectives.registry import ObjectiveConfig, build_objective
from pretrain.release.command import main as release
from pretrain.release.importers.caft import caft_computed, caft_keys
from pretrain.release.importers.command import ImportConfig, import_checkpoint, main
from pretrain.release.importers.flair import flair_keys
from pretrain.release.importers.keys import export_state, import_state
from recaption.common.config import ConfigError, UserError, load_config, write_config
from tests.places import CONFIGS, SHARED
from tests.pretrain.published import CAFT, FLAIR, build_pair
from tests.pretrain.untrained import write_boxed_shards

MODELS = {"caft": CAFT, "flair": FLAIR}


@pytest.fixture
def published(golden):
    """The stored state dict of a method, under its official names."""

    def read(method):
        if method == "flair":
            return golden("flair/model_tiny").group("param.")
        network = golden("caft/sfcn_weights_public").tensors
        return golden("caft/tiny_model_state_public").tensors | {
            f"visual.superpixel_generator.{name}": t.float() if t.is_floating_point() else t
            for name, t in network.items()
        }

    return read


def keys_of(method, model):
    if method == "caft":
        return list(caft_keys(model)), caft_computed(model)
    return list(flair_keys(model)), {}


@pytest.mark.parametrize("method", MODELS)
def test_there_and_back(method, published):
    state, pair = published(method), build_pair(MODELS[method], method)
    keys, computed = keys_of(method, pair["model"])
    pair.load_state_dict(import_state(state, keys, computed, pair.state_dict()))
    exported = export_state(pair.state_dict(), keys, computed)
    assert exported.keys() == state.keys()
    for name, tensor in state.items():
        if name in computed:
            torch.testing.assert_close(exported[name], tensor)
        else:
            assert torch.equal(exported[name], tensor), name
            assert exported[name].dtype == tensor.dtype


def test_every_key_of_the_published_base_model():
    path = SHARED / "golden/caft/caft_b_state_dict_manifest.json"
    if not path.exists():
        pytest.skip(f"no reference data at {path}; set CANOPY_SHARED")
    manifest = json.loads(path.read_text())
    config = load_config(
        ImportConfig, [str(CONFIGS / "model/caft_b_published.yaml"), "weights=w", "output=o"]
    ).model
    with torch.device("meta"):
        model = build_model(config)
        objective = build_objective(ObjectiveConfig("caft"), config.embed_dim)
    pair = nn.ModuleDict({"model": model, "objective": objective})
    keys, computed = keys_of("caft", model)
    exported = export_state(pair.state_dict(), keys, computed)
    shapes = {entry["key"]: entry["shape"] for entry in manifest["state_dict"]}
    assert {name: list(tensor.shape) for name, tensor in exported.items()} == shapes
    kinds = {entry["key"]: entry["kind"] for entry in manifest["state_dict"]}
    own = dict(pair.named_parameters())
    frozen = {"visual.pos_embed", "visual.pe_token"}
    for key in keys:
        assert all(name in own for name in key.own) == (kinds[key.published] == "parameter")
    counts = manifest["parameter_counts"]
    num_parameters = sum(p.numel() for p in pair.parameters())
    num_parameters += sum(computed[name].numel() for name in frozen)
    assert num_parameters == counts["total_parameters"]
    trained = sum(p.numel() for p in pair.parameters() if p.requires_grad)
    assert trained == counts["trainable_parameters"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("ln_final.bias"), r"lacks the key ln_final\.bias"),
        (lambda s: s.update({"ln_final.extra": torch.zeros(3)}), "unknown key ln_final.extra"),
        (
            lambda s: s.update({"ln_final.bias": torch.zeros(47)}),
            r"part_text\.norm\.bias has the shape \[47\] in the checkpoint and \[48\]",
        ),
        (
            lambda s: s.update({"visual.pos_embed": s["visual.pos_embed"] + 1}),
            r"visual\.pos_embed is not what the configured model computes",
        ),
    ],
)
def test_nothing_is_guessed(change, message, published):
    state, pair = dict(published("caft")), build_pair(CAFT, "caft")
    change(state)
    keys, computed = keys_of("caft", pair["model"])
    with pytest.raises(UserError, match=message):
        import_state(state, keys, computed, pair.state_dict())


def test_the_kind_of_model_is_checked():
    caft, flair = (build_pair(MODELS[method], method)["model"] for method in ("caft", "flair"))
    with pytest.raises(ConfigError, match=r"model\.image\.name=hierarchical"):
        list(caft_keys(flair))
    with pytest.raises(ConfigError, match=r"model\.image\.name=vit"):
        list(flair_keys(caft))
    with pytest.raises(ConfigError, match=r"superpixels\.name=spixelfcn"):
        list(caft_keys(build_model(ModelConfig())))


@pytest.mark.parametrize("method", MODELS)
@pytest.mark.parametrize("form", ["safetensors", "training checkpoint"])
def test_the_command(method, form, published, tmp_path, capsys, golden):
    """Weights in; a run out whose model gives the stored features."""
    if form == "safetensors":
        weights = tmp_path / "published.safetensors"
        save_file(published(method), weights)
    else:
        weights = tmp_path / "epoch_32.pt"
        parallel = {f"module.{name}": tensor for name, tensor in published(method).items()}
        torch.save({"epoch": 32, "name": "published", "state_dict": parallel}, weights)
    config = ImportConfig(str(weights), str(tmp_path / "run"), method, MODELS[method])
    write_config(config, tmp_path / "import.yaml")
    main([str(tmp_path / "import.yaml"), "--json"])
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed == {"run": str(tmp_path / "run"), "num_tensors": len(published(method))}

    inference = load_for_inference(tmp_path / "run")
    if method == "flair":
        reference = golden("flair/model_tiny")
        features = inference.model.encode_image(reference["in.image"])
        expected = reference["out.image_features"]
    else:
        reference = golden("caft/retrieval")
        features = inference.model.encode_image(reference["in.image"].float()[:2])
        expected = reference["mid.image_coarse_global"][:2]
    # Some pixels are within rounding of two superpixels, hence the tolerance.
    torch.testing.assert_close(features.pooled, expected, rtol=1e-3, atol=1e-4)
    with pytest.raises(UserError, match="is there already"):
        import_checkpoint(config)


@pytest.mark.parametrize("method", MODELS)
def test_an_imported_run_is_evaluated_and_released(method, tmp_path):
    """A model of the real tokenizer: published names in, a folder that opens in three lines out."""
    config = copy.deepcopy(MODELS[method])
    config.text.part.vocab_size = 49408
    pair = build_pair(config, method).eval()
    keys, computed = keys_of(method, pair["model"])
    weights = tmp_path / "published.safetensors"
    save_file(export_state(pair.state_dict(), keys, computed), weights)
    run = tmp_path / "run"
    import_checkpoint(ImportConfig(str(weights), str(run), method, config))
    data = write_boxed_shards(tmp_path / "data", 8)
    evaluate([f"checkpoint={run}", f"data={data}", "report=false"])
    release([f"run={run}", f"output={tmp_path / 'released'}"])
    card = (tmp_path / "released" / "README.md").read_text()
    assert "| steps | unknown |" in card and "Retrieval among" in card

    model = pretrain.load(tmp_path / "released", verify=True)
    picture = Image.effect_mandelbrot((300, 200), (-2, -1, 1, 1), 20).convert("RGB")
    features = model.encode_image([picture])
    pixels = model.inference.preprocess(picture).unsqueeze(0)
    expected = nn.functional.normalize(pair["model"].encode_image(pixels).pooled, dim=1)
    torch.testing.assert_close(features, expected)
    assert model.similarity([picture], ["A picture. Of a set."]).shape == (1, 1)


def test_an_imported_run_is_not_trained_on(tmp_path):
    config = copy.deepcopy(FLAIR)
    config.text.part.vocab_size = 49408
    pair = build_pair(config, "flair")
    weights = tmp_path / "published.safetensors"
    save_file(export_state(pair.state_dict(), flair_keys(pair["model"]), {}), weights)
    import_checkpoint(ImportConfig(str(weights), str(tmp_path / "run"), "flair", config))
    run = load_for_inference(tmp_path / "run").config
    with pytest.raises(UserError, match="holds weights only"):
        find_checkpoint(tmp_path / "run", run, world_size=1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there are no weights at"),
        (b"not weights", "cannot be read as weights"),
        ("pickle", "cannot be read as weights"),
        (b"version https://git-lfs.github.com/spec/v1\n", "torch.save did not write it"),
        (b"hello", "cannot be read as weights"),
        (b"<!doctype html>", "cannot be read as weights"),
        ("cut", "cannot be read as weights"),
        ([1, 2], "holds no state dict"),
    ],
)
def test_bad_files(content, message, tmp_path):
    path = tmp_path / "weights.pt"
    if content == "pickle":
        torch.save({"state_dict": ImportConfig("w", "o")}, path)  # an object: code, to pickle
    elif content == "cut":  # in the list of the archive
        torch.save({"a": torch.ones(3)}, path)
        path.write_bytes(path.read_bytes().replace(b"PK\x01\x02", b"PK\x00\x02"))
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(UserError, match=message):
        import_checkpoint(ImportConfig(str(path), str(tmp_path / "run"), "flair", FLAIR))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("number", [float("nan"), float("-inf")])
def test_weights_that_are_no_numbers(number, tmp_path):
    config = copy.deepcopy(FLAIR)
    config.text.part.vocab_size = 49408
    pair = build_pair(config, "flair")
    state = export_state(pair.state_dict(), flair_keys(pair["model"]), {})
    name = sorted(name for name, tensor in state.items() if tensor.dim() == 2)[0]
    state[name][1, 2] = number
    weights = tmp_path / "published.safetensors"
    save_file(state, weights)
    with pytest.raises(
        UserError, match=r"the checkpoint holds NaN or infinity in \S+: it is of no use"
    ):
        import_checkpoint(ImportConfig(str(weights), str(tmp_path / "run"), "flair", config))
    assert not (tmp_path / "run").exists()
