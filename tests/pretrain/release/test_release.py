"""A release: written, checked, opened without a training library, the same as its checkpoint."""

import json
import shutil
import subprocess
import sys
import tomllib
import warnings
from importlib.metadata import packages_distributions
from pathlib import Path

import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image
from safetensors.torch import load_file, save_file

import pretrain
from pretrain.checkpoint import EMA_WEIGHTS, WEIGHTS, newest_checkpoint
from pretrain.evaluate import main as evaluate
from pretrain.evaluate.config import EvaluateConfig
from pretrain.evaluate.loading import load_encoders
from pretrain.inference import load_for_inference
from pretrain.release import main
from pretrain.release.exports.command import main as export
from pretrain.release.fresh import TRAINING_LIBRARIES, open_in_fresh_process
from pretrain.release.model import ReleasedModel
from pretrain.release.sample import CAPTIONS, check_samples
from recaption.common.config import UserError
from tests.places import CHECKOUT
from tests.pretrain.untrained import TINY_CLIP, write_run


def flip_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_release_gives_what_its_checkpoint_gives(run: Path, released: Path) -> None:
    outputs = load_file(released / "samples" / "outputs.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in outputs.items()} == {
        "image": (3, 24),
        "text": (3, 24),
        "similarity": (3, 3),
        "localise": (80, 96),
    }
    for model in (ReleasedModel(load_for_inference(run)), pretrain.load(released, verify=True)):
        assert set(check_samples(released, model).values()) == {0.0}
    pictures = [released / "samples" / f"picture_{number}.png" for number in range(3)]
    assert torch.equal(pretrain.load(released).encode_image(pictures), outputs["image"])


def test_the_running_mean_of_the_weights_is_released_when_asked_for(tmp_path: Path) -> None:
    run, output = write_run(tmp_path / "run"), tmp_path / "released"
    for asked in ("ema=true", "step=ema"):
        with pytest.raises(UserError, match=r"no ema\.safetensors: .*engine\.ema_decay"):
            main([f"run={run}", f"output={output}", asked])
    checkpoint = newest_checkpoint(run)
    means = {name: tensor / 2 for name, tensor in load_file(checkpoint / WEIGHTS).items()}
    save_file(means, checkpoint / EMA_WEIGHTS)
    main([f"run={run}", f"output={output}", "step=ema", "name=mine"])
    released = load_file(output / WEIGHTS)
    assert all(torch.equal(released[name], mean) for name, mean in means.items())
    card = (output / "README.md").read_text()
    assert "# mine" in card and 'pretrain.load("mine")' in card and "running mean" in card
    assert "license: unknown" in card and "| hardware | unknown |" in card
    assert "| wall time | unknown |" in card


def test_the_folder_holds_what_it_should_and_no_paths(run: Path, released: Path) -> None:
    names = {path.relative_to(released).as_posix() for path in released.rglob("*.*")}
    assert names == {
        "README.md",
        "config.json",
        "evaluation.json",
        "model.safetensors",
        "release.json",
        "samples/captions.json",
        "samples/outputs.safetensors",
        *(f"samples/picture_{number}.png" for number in range(3)),
        "tokenizer/bpe_simple_vocab_16e6.txt.gz",
    }
    assert (released / "SHA256SUMS").read_text().count("\n") == len(names)
    assert all((released / name).stat().st_mode & 0o044 == 0o044 for name in names)
    assert (released / "README.md").read_text().endswith("\n")
    for name in ("README.md", "config.json", "evaluation.json", "release.json"):
        assert str(run.parent) not in (released / name).read_text()


def test_its_checksums_are_those_of_sha256sum(released: Path) -> None:
    subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=released, check=True)


def test_outputs_have_the_promised_shapes(released: Path, tmp_path: Path) -> None:
    model = pretrain.load(released)
    Image.new("RGB", (50, 30), (200, 30, 30)).save(tmp_path / "red.png")
    images = [tmp_path / "red.png", Image.new("RGB", (40, 64), (0, 0, 200))]
    encoded = model.encode_image(images)
    assert encoded.shape == (2, 24)
    assert torch.allclose(encoded.norm(dim=1), torch.ones(2))
    texts = model.encode_text(CAPTIONS)
    assert texts.shape == (3, 24)
    assert torch.allclose(texts.norm(dim=1), torch.ones(3))
    assert model.encode_text("One caption only").shape == (1, 24)
    assert model.similarity(images, CAPTIONS).shape == (2, 3)
    heat = model.localise(tmp_path / "red.png", "a red wall")
    assert heat.shape == (30, 50)
    assert (heat.min(), heat.max()) == (0.0, 1.0)


def test_a_picture_is_the_same_by_path_and_opened(released: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (40, 30, 4), np.uint8), "RGBA")
    picture.save(tmp_path / "transparent.png")
    model = pretrain.load(released)
    by_path = model.encode_image(tmp_path / "transparent.png")
    assert torch.equal(by_path, model.encode_image(picture))


def test_similarity_is_the_objectives_score_of_the_captions_parts(released: Path) -> None:
    model = pretrain.load(released)
    image = Image.effect_noise((32, 32), 90).convert("RGB")
    inference = model.inference
    with torch.inference_mode():
        encoded = inference.model.encode_image(inference.preprocess(image)[None])
        parts = ["A cat sleeps", "It is grey", "A cat sleeps", "It is grey"]
        text = inference.model.encode_text(inference.tokenizer.pack([parts]))
        expected = inference.objective.score(encoded, text)
    torch.testing.assert_close(model.similarity(image, "A cat sleeps. It is grey."), expected)


def test_nothing_outside_the_central_square_is_hot(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", TINY_CLIP, "data.image.resize=shortest")
    heat = pretrain.load(run).localise(Image.effect_noise((64, 32), 90), "noise")
    assert heat.shape == (32, 64)
    assert not heat[:, :16].any() and not heat[:, 48:].any()
    assert heat[:, 16:48].max() == 1.0
    assert isinstance(heat, np.ndarray)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer/bpe_simple_vocab_16e6.txt.gz"]
)
def test_what_is_read_is_compared_with_its_checksum(copy: Path, name: str) -> None:
    flip_last_byte(copy / name)
    with pytest.raises(UserError, match=f"{name} is damaged: its checksum"):
        pretrain.load(copy)
    (copy / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing, though|neither a run, nor a release"):
        pretrain.load(copy)


def test_who_opens_it_otherwise_is_refused_as_well(copy: Path, tmp_path: Path) -> None:
    flip_last_byte(copy / "model.safetensors")
    output = f"output={tmp_path / 'output'}"
    damaged = r"model\.safetensors is damaged: its checksum"
    with pytest.raises(UserError, match=damaged):
        evaluate([f"checkpoint={copy}", f"data={copy}", output])
    with pytest.raises(UserError, match=damaged):
        load_encoders(EvaluateConfig(checkpoint=str(copy)))  # of benchmark=...
    with pytest.raises(UserError, match=damaged):
        export(["to=open_clip", f"release={copy}", output])
    load_for_inference(copy, verify=False)


def test_all_is_compared_when_asked_for(copy: Path) -> None:
    (copy / ".git").mkdir()
    (copy / ".git" / "HEAD").touch()  # of what carries it about
    pretrain.load(copy, verify=True)
    (copy / "samples" / "more.json").touch()
    with pytest.raises(UserError, match=r"more\.json is no part of the release"):
        pretrain.load(copy, verify=True)
    (copy / "samples" / "more.json").unlink()
    flip_last_byte(copy / "README.md")
    pretrain.load(copy)
    with pytest.raises(UserError, match=r"README\.md is damaged"):
        pretrain.load(copy, verify=True)
    (copy / "README.md").unlink()
    with pytest.raises(UserError, match=r"README\.md is missing"):
        pretrain.load(copy, verify=True)


def test_a_file_that_was_slipped_in_where_it_would_be_read_is_refused(copy: Path) -> None:
    (copy / "tokenizer" / "merges.txt").touch()
    with pytest.raises(UserError, match=r"merges\.txt is no part of the release"):
        pretrain.load(copy)


def test_a_list_of_checksums_that_is_missing_or_odd(copy: Path) -> None:
    sums = copy / "SHA256SUMS"
    good = sums.read_text()
    for line in ("no checksum\n", f"{'0' * 64}  ../outside\n", f"{'0' * 64}  /etc/passwd\n"):
        sums.write_text(line + good)
        with pytest.raises(UserError, match="SHA256SUMS is damaged: line 1"):
            pretrain.load(copy)
    sums.unlink()
    with pytest.raises(UserError, match="holds no SHA256SUMS"):
        pretrain.load(copy)
    pretrain.load(copy, verify=False)


def test_folders_that_are_no_release_are_errors(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no folder"):
        pretrain.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="neither a run, nor a release"):
        pretrain.load(tmp_path)
    with pytest.raises(UserError, match="only a release can be verified"):
        pretrain.load(run, verify=True)


def test_samples_that_give_something_else_are_named(copy: Path, tmp_path: Path) -> None:
    other = ReleasedModel(load_for_inference(write_run(tmp_path / "other", step=8)))
    with pytest.raises(UserError, match=r"gives another `image` .* differ by up to 0"):
        check_samples(copy, other)
    outputs = copy / "samples" / "outputs.safetensors"
    tensors = load_file(outputs)
    save_file(tensors | {"similarity": tensors["similarity"] + 3e-5}, outputs)
    with pytest.raises(UserError, match=r"`similarity` .* up to 3e-05, and 1e-05 is allowed"):
        check_samples(copy, pretrain.load(copy))
    with pytest.raises(RuntimeError, match=r"does not open(.|\n)*outputs\.safetensors is damaged"):
        open_in_fresh_process(copy)
    outputs.write_bytes(outputs.read_bytes()[:100])
    with pytest.raises(UserError, match=r"outputs\.safetensors is damaged"):
        check_samples(copy, pretrain.load(copy))
    outputs.unlink()
    with pytest.raises(UserError, match="nothing to compare with"):
        check_samples(copy, pretrain.load(copy))


def test_samples_of_another_form_are_named(copy: Path) -> None:
    outputs, model = copy / "samples" / "outputs.safetensors", pretrain.load(copy)
    tensors = load_file(outputs)
    for stored, message in (
        ({n: t for n, t in tensors.items() if n != "localise"}, "lacks the output `localise`"),
        ({n: t for n, t in tensors.items() if n != "image"}, "lacks the output `image`"),
        (tensors | {"depth": tensors["image"].clone()}, "has the unknown output `depth`"),
        (tensors | {"text": tensors["text"][:1]}, r"`text` as torch.float32 \[1, 24\], and the"),
        (tensors | {"text": tensors["text"].half()}, r"`text` as torch.float16 \[3, 24\], and the"),
    ):
        save_file(stored, outputs)
        with pytest.raises(UserError, match=message):
            check_samples(copy, model)
    captions = copy / "samples" / "captions.json"
    for content in ("[]", '{"a": 1}', '["A cat", "", "A dog"]'):
        captions.write_text(content)
        with pytest.raises(UserError, match=r"captions\.json does not hold 3 captions"):
            check_samples(copy, model)


def test_what_training_needs_and_opening_does_not_is_refused() -> None:
    extras = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    train, inference = (
        {canonicalize_name(Requirement(line).name) for line in extras[name]}
        for name in ("train", "inference")
    )
    modules_of: dict[str, set[str]] = {name: set() for name in train - inference}
    for module, distributions in packages_distributions().items():
        for name in {*map(canonicalize_name, distributions)} & modules_of.keys():
            modules_of[name].add(module)
    assert {"scipy", "pycocotools", "mosaicml-streaming"} <= modules_of.keys()
    for name, modules in modules_of.items():
        assert modules & TRAINING_LIBRARIES, name


def test_the_fresh_process_has_no_training_library() -> None:
    program = """
import importlib.util
from pretrain.release.fresh import TRAINING_LIBRARIES, refuse_training_libraries
there = {name for name in TRAINING_LIBRARIES if importlib.util.find_spec(name)}
assert {"deepspeed", "streaming", "pyarrow", "matplotlib"} <= there, there
refuse_training_libraries()
assert not any(map(importlib.util.find_spec, TRAINING_LIBRARIES))
import deepspeed
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "ModuleNotFoundError: import of deepspeed halted" in done.stderr


def test_the_card_tells_what_is_known(released: Path) -> None:
    card = (released / "README.md").read_text()
    figures = json.loads((released / "evaluation.json").read_text())
    recall = figures["retrieval"]["columns"]["blended"]["text_to_image"]["r5"]
    assert f"| {100 * recall:.1f} % |" in card
    assert "`boxes`" in card
    assert "| samples seen | 56 |" in card
    assert "| training samples | 4,321 |" in card
    assert "long 4,300, raw 4,321" in card
    assert "| left out when packing | 7 |" in card
    assert "- Images and captions: unknown." in card
    assert "| captions written by | unknown |" in card
    assert "No data card of the training shards was found" in card
    assert "license: apache-2.0" in card and "- Weights: apache-2.0." in card
    assert "| hardware | 2 x CPU |" in card and "| called | CC3M |" in card


def test_it_is_called_after_what_it_is(released: Path) -> None:
    assert released.name == "CAFT-w24d3-8-CC3M-s56-b8"
    facts = json.loads((released / "release.json").read_text())
    assert facts["name"] == released.name
    assert facts["training"]["global_batch"] == 8


def test_mistakes_are_named(run: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    (tmp_path / "SHA256SUMS").touch()  # of whatever it is
    for arguments, message in (
        ([f"run={tmp_path}", f"output={tmp_path / 'new'}"], "is not a run"),
        ([f"run={run}", f"output={tmp_path}"], "is no release"),
        ([f"run={run}", f"output={tmp_path / 'new'}", "step=3"], "it has step-00000007"),
        ([f"run={run}", "step=last"], "step=last: it is a number of steps, or ema"),
        ([f"run={run}", "name=a/b"], "leave out the slash"),
        ([f"output={tmp_path / 'new'}"], "run has no default"),
    ):
        with pytest.raises(UserError, match=message):
            main(arguments)
    assert (tmp_path / "thesis.txt").exists()
    assert not (tmp_path / "new").exists()


def test_an_incomplete_checkpoint_is_not_released(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "checkpoints" / "step-00000007" / "COMPLETE").unlink()
    with pytest.raises(UserError, match="COMPLETE"):
        main([f"run={run}", f"output={tmp_path / 'released'}"])


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_cut_off_is_named(copy: Path, name: str) -> None:
    path = copy / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=f"{name} is damaged"):
        pretrain.load(copy, verify=False)


def test_a_checkpoint_of_another_architecture_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    clip = write_run(tmp_path / "clip", TINY_CLIP)
    shutil.copy(newest_checkpoint(clip) / WEIGHTS, newest_checkpoint(run) / WEIGHTS)
    with pytest.raises(UserError, match=r"model\.safetensors does not fit its configuration: "):
        main([f"run={run}", f"output={tmp_path / 'released'}"])
    assert not (tmp_path / "released").exists()


def test_what_the_model_does_not_read_of_a_text_is_told(released: Path) -> None:
    model = pretrain.load(released)
    long = "A word after a word " * 10  # 50 words for a context of 32 tokens
    with pytest.warns(UserWarning, match="longer than the 32 tokens .* 1 of the texts"):
        model.encode_text(["Short.", long])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.encode_text("One sentence. And another one.")
