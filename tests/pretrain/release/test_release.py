"""A release: written, checked, opened without a training library, the same as its checkpoint."""

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import pretrain
from pretrain.checkpoint import EMA_WEIGHTS, WEIGHTS, newest_checkpoint
from pretrain.evaluate import main as evaluate
from pretrain.inference import load_for_inference
from pretrain.release import main
from pretrain.release.command import compare_outputs, outputs_elsewhere
from pretrain.release.model import ReleasedModel
from pretrain.release.sample import CAPTIONS, sample_outputs
from recaption.common.config import UserError
from tests.pretrain.untrained import TINY_CLIP, write_boxed_shards, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluated run with two checkpoints and packed training shards."""
    folder = tmp_path_factory.mktemp("release")
    run = write_run(folder / "run")
    data = write_boxed_shards(folder / "boxes", 8)
    evaluate([f"checkpoint={run}", f"data={data}", "report=false"])
    (run / "train").mkdir()
    summary = {"num_samples": 4321, "num_quarantined": 7, "sources": {"long": 4300, "raw": 4321}}
    (run / "train" / "pack.json").write_text(json.dumps({"summary": summary}))
    return run


@pytest.fixture(scope="module")
def released(run: Path) -> Path:
    folder = run.parent / "released"
    main([f"run={run}", f"output={folder}"])
    return folder


@pytest.fixture
def copy(released: Path, tmp_path: Path) -> Path:
    """A release that may be damaged."""
    folder = tmp_path / "copy"
    for path in released.rglob("*"):
        if path.is_file():
            target = folder / path.relative_to(released)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return folder


def test_a_release_gives_what_its_checkpoint_gives(run: Path, released: Path) -> None:
    expected = sample_outputs(ReleasedModel(load_for_inference(run)))
    outputs = sample_outputs(pretrain.load(released, verify=True))
    for name, tensor in expected.items():
        assert torch.equal(outputs[name], tensor), name


def test_the_running_mean_of_the_weights_is_released_when_asked_for(tmp_path: Path) -> None:
    run, output = write_run(tmp_path / "run"), tmp_path / "released"
    with pytest.raises(UserError, match=r"no ema\.safetensors: .*engine\.ema_decay"):
        main([f"run={run}", f"output={output}", "ema=true"])
    checkpoint = newest_checkpoint(run)
    means = {name: tensor / 2 for name, tensor in load_file(checkpoint / WEIGHTS).items()}
    save_file(means, checkpoint / EMA_WEIGHTS)
    main([f"run={run}", f"output={output}", "ema=true"])
    released = load_file(output / WEIGHTS)
    assert all(torch.equal(released[name], mean) for name, mean in means.items())


def test_the_folder_holds_what_it_should_and_no_paths(run: Path, released: Path) -> None:
    names = {path.relative_to(released).as_posix() for path in released.rglob("*.*")}
    assert names == {
        "README.md",
        "config.json",
        "evaluation.json",
        "model.safetensors",
        "tokenizer/bpe_simple_vocab_16e6.txt.gz",
    }
    assert (released / "SHA256SUMS").read_text().count("\n") == 5
    for name in ("README.md", "config.json", "evaluation.json"):
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


def test_it_opens_without_training_libraries(released: Path) -> None:
    program = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {{"deepspeed", "streaming", "matplotlib", "skimage", "vllm"}}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocker())
import pretrain
model = pretrain.load({str(released)!r})
print(tuple(model.encode_text(["A long caption. Of two sentences."]).shape))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "(1, 24)", done.stderr


@pytest.mark.parametrize("name", ["model.safetensors", "README.md"])
def test_a_flipped_byte_is_found(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[-1] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name} is damaged"):
        pretrain.load(copy, verify=True)


def test_a_missing_file_is_found(copy: Path) -> None:
    (copy / "evaluation.json").unlink()
    with pytest.raises(UserError, match=r"evaluation\.json is missing"):
        pretrain.load(copy, verify=True)
    (copy / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"no model\.safetensors"):
        pretrain.load(copy)


def test_folders_that_are_no_release_are_errors(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no folder"):
        pretrain.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="neither a run, nor a release"):
        pretrain.load(tmp_path)
    with pytest.raises(UserError, match="only a release can be verified"):
        pretrain.load(run, verify=True)


def test_a_release_that_differs_or_does_not_open_is_refused(
    run: Path, released: Path, tmp_path: Path
) -> None:
    other = load_for_inference(write_run(tmp_path / "other", step=8))
    outputs = sample_outputs(pretrain.load(released))
    compare_outputs(outputs, sample_outputs(ReleasedModel(load_for_inference(run))))
    with pytest.raises(RuntimeError, match="gives another `image`"):
        compare_outputs(outputs, sample_outputs(ReleasedModel(other)))
    with pytest.raises(RuntimeError, match="does not open"):
        outputs_elsewhere(tmp_path)


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
    assert "licence of images and captions | unknown" in card


def test_figures_of_other_weights_are_not_released(run: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "run", step=9)
    (other / "evaluation.json").write_text((run / "evaluation.json").read_text())
    main([f"run={other}", f"output={tmp_path / 'released'}"])
    assert not (tmp_path / "released" / "evaluation.json").exists()
    card = (tmp_path / "released" / "README.md").read_text()
    assert "Unknown: the run was evaluated at another checkpoint (step-00000007)" in card
    assert "| training samples | unknown |" in card


def test_mistakes_are_named(run: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    for arguments, message in (
        ([f"run={tmp_path}", f"output={tmp_path / 'new'}"], "is not a run"),
        ([f"run={run}", f"output={tmp_path}"], "is no release"),
        ([f"run={run}", f"output={tmp_path / 'new'}", "step=3"], "it has step-00000007"),
        ([f"run={run}"], "output has no default"),
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
        pretrain.load(copy)


def test_what_the_model_does_not_read_of_a_text_is_told(released: Path) -> None:
    model = pretrain.load(released)
    long = "A word after a word " * 10  # 50 words for a context of 32 tokens
    with pytest.warns(UserWarning, match="longer than the 32 tokens .* 1 of the texts"):
        model.encode_text(["Short.", long])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.encode_text("One sentence. And another one.")


def test_figures_of_another_image_size_are_not_those_of_the_release(
    run: Path, tmp_path: Path
) -> None:
    larger = tmp_path / "run"
    shutil.copytree(run, larger)
    data = write_boxed_shards(tmp_path / "boxes", 8)
    evaluate([f"checkpoint={larger}", f"data={data}", "report=false", "image_size=64"])
    assert json.loads((larger / "evaluation.json").read_text())["image_size"] == 64
    main([f"run={larger}", f"output={tmp_path / 'released'}"])
    assert not (tmp_path / "released" / "evaluation.json").exists()
    card = (tmp_path / "released" / "README.md").read_text()
    assert "evaluated on images of 64 px, not 32" in card
