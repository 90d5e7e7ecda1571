"""open_clip's and OpenAI's checkpoints: the same features as theirs, the same tensors back."""

import json
import pickle
import warnings
import zipfile

import open_clip
import pytest
import torch
from open_clip.model import CLIP, build_model_from_openai_state_dict
from safetensors.torch import save_file
from torch import nn

from pretrain.data.tokens import Tokenizer
from pretrain.inference import load_for_inference
from pretrain.models.registry import build_model
from pretrain.objectives.registry import ObjectiveConfig, build_objective
from pretrain.release.exports.open_clip import open_clip_state
from pretrain.release.importers.command import ImportConfig, import_checkpoint, main
from pretrain.release.importers.keys import export_state
from pretrain.release.importers.methods import METHODS
from pretrain.release.importers.open_clip_config import from_open_clip, named_model, to_open_clip
from recaption.common.config import ConfigError, UserError
from tests.pretrain.pickles import Touch

TEXTS = [
    "A red kite above a green hill",
    "a cat",
    "On the left stands a tall tree, a bench is there",
]
#: open_clip's description of a pair of two layers; its vocabulary is that of the real tokenizer.
VISION = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 20, "vocab_size": 49408, "width": 24, "heads": 2, "layers": 2}


def describe(vision=None, text=None, **pair):
    return {
        "embed_dim": 16,
        "vision_cfg": VISION | (vision or {}),
        "text_cfg": TEXT | (text or {}),
        **pair,
    }


def reference(description):
    """open_clip's model with random weights, biases and norms included."""
    torch.manual_seed(0)
    model = CLIP(**description).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name not in ("logit_scale", "logit_bias"):
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def assert_same_features(run, model, context_length=20):
    inference = load_for_inference(run)
    images = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        found = inference.model.encode_image(images).pooled
        torch.testing.assert_close(found, model.encode_image(images), rtol=1e-5, atol=1e-5)
        tokens = open_clip.SimpleTokenizer(context_length=context_length)(TEXTS)
        packed = inference.tokenizer.pack([[text] for text in TEXTS])
        found = inference.model.encode_text(packed).whole
        torch.testing.assert_close(found, model.encode_text(tokens), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(inference.objective.scale[0], model.logit_scale.exp())
    return inference


def exported(inference, method):
    keys = METHODS[method].keys(inference.model, inference.objective)
    pair = nn.ModuleDict({"model": inference.model, "objective": inference.objective})
    return export_state(pair.state_dict(), keys, METHODS[method].computed(inference.model))


def assert_identical(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize(
    "description",
    [
        describe(),
        describe(quick_gelu=True),
        describe({"no_ln_pre": True, "mlp_ratio": 3.5, "norm_kwargs": {"eps": 1e-6}}),
        describe(init_logit_bias=-10.0),
    ],
    ids=["plain", "quick_gelu", "other_norms", "siglip"],
)
def test_open_clip_there_and_back(description, tmp_path):
    """As open_clip_train saves it, by the configuration of a folder of open_clip."""
    model = reference(description)
    parallel = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"epoch": 3, "name": "run", "state_dict": parallel}, tmp_path / "epoch_3.pt")
    config = from_open_clip(description, "this test")
    run = tmp_path / "run"
    import_checkpoint(
        ImportConfig(str(tmp_path / "epoch_3.pt"), str(run), "open_clip", model=config)
    )
    inference = assert_same_features(run, model)
    assert_identical(exported(inference, "open_clip"), model.state_dict())
    assert inference.config.data.image.resize == "shortest"
    again = to_open_clip(config)
    assert from_open_clip(again, "again") == config
    assert hasattr(inference.objective, "bias") == ("init_logit_bias" in description)


def test_quick_gelu_is_not_gelu(tmp_path):
    """What the parity above would not see if both models ignored it."""
    model = reference(describe(quick_gelu=True))
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    config = from_open_clip(describe(), "this test")
    run = tmp_path / "run"
    import_checkpoint(
        ImportConfig(str(tmp_path / "model.safetensors"), str(run), "open_clip", model=config)
    )
    with pytest.raises(AssertionError):
        assert_same_features(run, model)


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-16-quickgelu", "ViT-H-14", "ViT-g-14"])
def test_models_that_open_clip_knows_by_name(name):
    """Every tensor of the published sizes has its place."""
    config = named_model(name)
    with torch.device("meta"):
        published = CLIP(**open_clip.get_model_config(name)).state_dict()
        model = build_model(config)
        objective = build_objective(ObjectiveConfig("clip"), config.embed_dim)
    own = nn.ModuleDict({"model": model, "objective": objective}).state_dict()
    found = export_state(own, METHODS["open_clip"].keys(model, objective), {})
    assert {n: t.shape for n, t in found.items()} == {n: t.shape for n, t in published.items()}


@pytest.fixture(scope="module")
def openai():
    """A state dict as OpenAI's, of heads 64 wide, and open_clip's model of it."""
    description = describe(
        {"width": 64, "head_width": 64, "layers": 1},
        {"width": 64, "heads": 1, "layers": 1},
        quick_gelu=True,
    )
    state = reference(description).state_dict()
    sizes = {"input_resolution": 32, "context_length": 20, "vocab_size": 49408}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = build_model_from_openai_state_dict(dict(state))
    state = dict(model.state_dict()) | {n: torch.tensor(size) for n, size in sizes.items()}
    assert {tensor.dtype for tensor in state.values()} == {
        torch.float16,
        torch.float32,
        torch.int64,
    }
    return state, model.float()


@pytest.mark.parametrize("form", ["torchscript", "pt", "safetensors"])
def test_openai_there_and_back(form, openai, tmp_path):
    state, model = openai
    weights = tmp_path / ("ViT.safetensors" if form == "safetensors" else "ViT.pt")
    if form == "safetensors":
        save_file(state, weights)
    elif form == "pt":
        torch.save(state, weights)
    else:
        save_as_torchscript(state, weights)
    run = tmp_path / "run"
    main([f"weights={weights}", f"output={run}", "method=openai"])
    inference = assert_same_features(run, model)
    assert inference.config.model.text.part.activation == "quick_gelu"
    assert_identical(exported(inference, "openai"), state)


def test_a_checkpoint_that_does_not_say_that_it_is_openais(openai, tmp_path, capsys):
    """Names and shapes of open_clip's are the same; its activation and heads are not."""
    state = dict(openai[0])
    sizes = ("input_resolution", "context_length", "vocab_size")
    for left_out in (sizes[:2], sizes):
        rest = {name: tensor for name, tensor in state.items() if name not in left_out}
        weights, run = tmp_path / f"{len(left_out)}.pt", tmp_path / f"run{len(left_out)}"
        torch.save(rest, weights)
        main([f"weights={weights}", f"output={run}", "method=openai"])
        assert load_for_inference(run).config.model.image.vit.activation == "quick_gelu"
        warned = capsys.readouterr().err
        assert ("quick GELU and heads 64 wide are assumed" in warned) == (left_out == sizes)
        assert ("give method=open_clip" in warned) == (left_out == sizes)


@pytest.mark.parametrize("description", [describe(), describe(init_logit_bias=-10.0)])
def test_a_temperature_beyond_our_own_bound(description, tmp_path):
    """Trained without CLIP's bound of 100: used, and written again, as it is."""
    model = reference(description)
    with torch.no_grad():
        model.logit_scale.fill_(4.8)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    config = from_open_clip(description, "this test")
    run = tmp_path / "run"
    import_checkpoint(
        ImportConfig(str(tmp_path / "model.safetensors"), str(run), "open_clip", model=config)
    )
    inference = assert_same_features(run, model)
    assert torch.equal(open_clip_state(inference)["logit_scale"], model.logit_scale)


class Named(nn.Module):
    """Modules below modules, so that parameters have the names that they are given."""

    def __init__(self, state):
        super().__init__()
        for name in dict.fromkeys(name.split(".")[0] for name in state):
            if name in state:
                is_weight = state[name].is_floating_point()
                tensor = nn.Parameter(state[name].clone()) if is_weight else state[name]
                (self.register_parameter if is_weight else self.register_buffer)(name, tensor)
                continue
            below = {
                key.removeprefix(f"{name}."): tensor
                for key, tensor in state.items()
                if key.startswith(f"{name}.")
            }
            self.add_module(name, Named(below))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def save_as_torchscript(state, path):
    module = Named(state)
    module.register_buffer("attn_mask", torch.zeros(20, 20))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(module, torch.zeros(1)), path)


def test_a_torchscript_archive_runs_nothing(openai, tmp_path):
    state, _ = openai
    good, bad = tmp_path / "good.pt", tmp_path / "bad.pt"
    save_as_torchscript(state, good)
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("/data.pkl"):
                content = pickle.dumps(Touch(tmp_path / "touched"))
            target.writestr(name, content)
    config = ImportConfig(str(bad), str(tmp_path / "run"), "openai")
    with pytest.raises(UserError, match="which is no tensor"):
        import_checkpoint(config)
    assert not (tmp_path / "touched").exists()
    good.write_bytes(good.read_bytes()[:-300])
    with pytest.raises(UserError, match="cannot be read as"):
        import_checkpoint(ImportConfig(str(good), str(tmp_path / "run"), "openai"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("ln_final.bias"), r"lacks the key ln_final\.bias"),
        (lambda s: s.pop("visual.conv1.weight"), r"lacks the key visual\.conv1\.weight"),
        (lambda s: s.update(extra=torch.zeros(1)), "unknown key extra"),
        (lambda s: s.update({"visual.layer1.0.conv1.weight": torch.zeros(1)}), "it is of a ResNet"),
        (lambda s: s.update(context_length=torch.tensor(77)), "context_length is not what"),
        (
            lambda s: s.update(text_projection=torch.zeros(64)),
            r"text_projection has the shape \[64\]",
        ),
        (
            lambda s: s.update({"visual.ln_pre.weight": torch.zeros(63)}),
            r"pre_norm\.weight has the shape \[63\]",
        ),
    ],
)
def test_another_checkpoint(change, message, openai, tmp_path):
    state = dict(openai[0])
    change(state)
    torch.save(state, tmp_path / "ViT.pt")
    config = ImportConfig(str(tmp_path / "ViT.pt"), str(tmp_path / "run"), "openai")
    with pytest.raises(UserError, match=message):
        import_checkpoint(config)
    assert not (tmp_path / "run").exists()


def test_weights_that_half_precision_would_round_are_not_exported_as_openais(openai, tmp_path):
    state = {name: t.float() if t.is_floating_point() else t for name, t in openai[0].items()}
    state["visual.proj"] = state["visual.proj"] + 1e-6
    save_file(state, tmp_path / "tuned.safetensors")
    run = tmp_path / "run"
    import_checkpoint(ImportConfig(str(tmp_path / "tuned.safetensors"), str(run), "openai"))
    with pytest.raises(UserError, match=r"visual\.proj is published in torch\.float16"):
        exported(load_for_inference(run), "openai")


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (describe({"pool_type": "avg"}), "pool_type=avg is not supported"),
        (describe({"layers": [3, 4, 6, 3]}), "only vision transformers"),
        (describe({"layer": 3}), "knows no setting layer"),
        (describe(text={"no_causal_mask": True}), "no_causal_mask=True is not supported"),
        (describe(custom_text=True), "custom_text=True is not supported"),
        (describe({"norm_kwargs": {"bias": False}}), "only eps"),
    ],
)
def test_what_our_towers_do_not_have_is_named(description, message):
    with pytest.raises(ConfigError, match=message):
        from_open_clip(description, "architecture X")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"open_clip_config\.json is damaged: it is not JSON"),
        ([1], "the file must hold keys and values"),
        ({}, "there is no embed_dim"),
        ({"model_cfg": {"embed_dim": 24}}, "there is no vision_cfg"),
        ({"model_cfg": {"vision_cfg": {}, "text_cfg": {}}}, "there is no embed_dim"),
        ({"model_cfg": {"embed_dim": 24, "vision_cfg": {}}}, "there is no text_cfg"),
        ({"model_cfg": [1]}, "model_cfg must hold keys and values"),
        ({"model_cfg": describe() | {"text_cfg": 3}}, "text_cfg must hold keys and values"),
        ({"model_cfg": describe() | {"embed_dim": "24"}}, "embed_dim='24': it must be a whole"),
        ({"model_cfg": describe({"head_width": 0})}, "vision_cfg.head_width=0: it must be"),
        ({"model_cfg": describe({"width": "24"})}, "vision_cfg.width='24': it must be a whole"),
        ({"model_cfg": describe({"mlp_ratio": None})}, "vision_cfg.mlp_ratio=None: it must be a"),
        ({"model_cfg": describe(text={"heads": 1.5})}, r"text_cfg\.heads=1\.5: it must be a whole"),
        ({"model_cfg": describe({"norm_kwargs": [1]})}, "norm_kwargs must hold keys and values"),
        ({"model_cfg": describe({"norm_kwargs": {"eps": "x"}})}, "norm_kwargs.eps='x': it must be"),
    ],
)
def test_a_wrong_description_in_a_folder_is_named(content, message, tmp_path):
    file = tmp_path / "open_clip_config.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UserError, match=message) as raised:
        named_model(f"local-dir:{tmp_path}")
    assert str(file) in str(raised.value)


def test_the_name_of_an_architecture():
    with pytest.raises(UserError, match=r"there is no \S*nowhere/open_clip_config\.json"):
        named_model("local-dir:nowhere")
    with pytest.raises(UserError, match=r"no architecture ViT-B32; did you mean ViT-B-32\?"):
        named_model("ViT-B32")
    with pytest.raises(ConfigError, match="goes with method=open_clip alone"):
        ImportConfig("w", "o", "openai", architecture="ViT-B-32")


def test_context_and_tokens_are_open_clips():
    tokens = open_clip.SimpleTokenizer(context_length=20)(TEXTS)
    for row, text in zip(tokens, TEXTS, strict=True):
        own = Tokenizer(20).encode(text)
        assert row[: len(own)].tolist() == own and not row[len(own) :].any()
