"""Encoders of Canopy and of open_clip behind the same protocol."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, PreTrainedTokenizerFast

from pretrain.evaluate.encoders import BlendedScore, Encoders
from pretrain.evaluate.open_clip_architectures import build, find_architecture
from pretrain.evaluate.open_clip_encoders import OpenClipEncoders, load_open_clip
from recaption.common.config import UserError
from recaption.common.files import sha256_file
from tests.pretrain.evaluate.benchmarks.models import (
    TINY_OPEN_CLIP,
    canopy_encoders,
    write_open_clip,
)
from tests.pretrain.trainruns import TINY
from tests.pretrain.untrained import TINY_CLIP

CAPTIONS = ["A cat sits. It is grey. The wall is 2.5 metres high", "One dog", "x" * 400]
CPU = torch.device("cpu")


@pytest.fixture
def tiny(tmp_path: Path) -> OpenClipEncoders:
    config, weights = write_open_clip(tmp_path)
    return load_open_clip(str(config), weights, CPU)


def pictures(number: int) -> list[Image.Image]:
    draw = np.random.default_rng(0)
    arrays = [draw.integers(0, 255, (40, 56, 3)).astype(np.uint8) for _ in range(number)]
    return [Image.fromarray(array) for array in arrays]


def check_protocol(encoders: Encoders) -> None:
    """Shapes, and that a batch gives what its members give alone."""
    pixels = [encoders.preprocess(picture) for picture in pictures(3)]
    assert all(tuple(p.shape) == (3, 32, 32) for p in pixels)
    images, texts = encoders.encode_images(pixels), encoders.encode_captions(CAPTIONS)
    scores = encoders.score(images, texts)
    assert scores.shape == (3, 3)
    alone = encoders.score(
        encoders.encode_images(pixels[1:2]), encoders.encode_captions(CAPTIONS[2:])
    )
    torch.testing.assert_close(scores[1:2, 2:], alone, rtol=1e-4, atol=1e-5)
    sentences = encoders.encode_sentences(["A cat", "A dog", "A wall", "A man", "A car"])
    assert sentences.shape == (5, images.pooled.shape[1])
    maps = encoders.localise(images, sentences[:2].expand(3, -1, -1))
    assert maps is None or maps.shape == (3, 2, 32, 32)
    assert len(encoders.describe()["weights"]["sha256"]) == 64


@pytest.mark.parametrize("config", [TINY, TINY_CLIP], ids=["caft", "clip"])
def test_canopy_models(config: str, tmp_path: Path) -> None:
    encoders = canopy_encoders(tmp_path, config)
    check_protocol(encoders)
    assert [encoders.is_cut(caption) for caption in CAPTIONS] == [False, False, True]
    assert encoders.describe()["context_length"] == 32


def test_caft_is_cut_by_its_parts(tmp_path: Path) -> None:
    """Eight sentences of eight words are too long for one text of 32 tokens, and fit into four."""
    caption = ". ".join(["there is a red ball on the floor"] * 8)
    caft, clip = (
        canopy_encoders(tmp_path / name, config)
        for name, config in (("caft", TINY), ("clip", TINY_CLIP))
    )
    assert (caft.is_cut(caption), clip.is_cut(caption)) == (False, True)


def test_caft_blends_by_the_alpha_given(tmp_path: Path) -> None:
    encoders = canopy_encoders(tmp_path, alpha=0.25)
    assert isinstance(encoders, BlendedScore)
    images = encoders.encode_images([encoders.preprocess(p) for p in pictures(3)])
    texts = encoders.encode_captions(CAPTIONS)
    columns = encoders.score_columns(images, texts)
    assert list(columns) == ["blended", "whole", "local"]
    blend = 0.75 * columns["whole"] + 0.25 * columns["local"]
    assert torch.equal(columns["blended"], blend)
    assert torch.equal(encoders.score(images, texts), blend)
    assert not torch.allclose(columns["whole"], columns["local"])


def test_alpha_and_candidates_are_of_caft_only(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no CAFT"):
        canopy_encoders(tmp_path / "a", TINY_CLIP, alpha=0.5)
    with pytest.raises(UserError, match="no CAFT"):
        canopy_encoders(tmp_path / "b", TINY_CLIP, num_candidates=4)


def test_open_clip_models(tiny: OpenClipEncoders, tmp_path: Path) -> None:
    check_protocol(tiny)
    assert tiny.describe()["image_size"] in (32, (32, 32))
    assert tiny.name == "canopy-tiny (weights)"
    described = tiny.describe()
    assert described["preprocess"]["resize_mode"] == "shortest"
    assert (described["quick_gelu"], described["tag"]) == (False, None)
    assert described["config"]["sha256"] == sha256_file(tmp_path / "canopy-tiny.json")
    assert described["captions"] == "as_written"


def test_open_clip_gives_its_own_features(tmp_path: Path) -> None:
    config, weights = write_open_clip(tmp_path)
    encoders = load_open_clip(str(config), weights, CPU)
    model, _, prepare = open_clip.create_model_and_transforms("canopy-tiny")
    model.load_state_dict(load_file(weights))
    model.eval()
    image = pictures(1)[0]
    assert torch.equal(encoders.preprocess(image), prepare(image))
    with torch.no_grad():
        expected = model.encode_image(prepare(image)[None])
        words = model.encode_text(open_clip.get_tokenizer("canopy-tiny")(CAPTIONS))
    torch.testing.assert_close(encoders.encode_images([prepare(image)]).pooled, expected)
    torch.testing.assert_close(encoders.encode_captions(CAPTIONS).whole, words)


def test_open_clip_says_which_captions_are_cut(tiny: OpenClipEncoders) -> None:
    # 24 tokens, start and end among them.
    for number, is_cut in ((1, False), (22, False), (23, True), (60, True)):
        assert tiny.is_cut(" ".join(["cat"] * number)) is is_cut


@pytest.mark.parametrize(
    ("settings", "longest"),
    [
        ({}, 4),
        ({"tokenizer_kwargs": {"strip_sep_token": True}}, 4),
        ({"tokenizer_mode": "clips"}, 3),
    ],
    ids=["standard", "strip_sep_token", "clips"],
)
def test_open_clip_says_which_captions_are_cut_for_tokenizers_of_transformers(
    settings: dict[str, Any], longest: int, tmp_path: Path
) -> None:
    write_words_tokenizer(tmp_path)
    text = {"width": 16, "heads": 2, "layers": 1, "context_length": 6, "vocab_size": 8}
    config = tmp_path / "words.json"
    config.write_text(
        json.dumps(
            TINY_OPEN_CLIP | {"text_cfg": text | {"hf_tokenizer_name": "lab/words"} | settings}
        )
    )
    weights = tmp_path / "words.safetensors"
    architecture = find_architecture(str(config))
    save_file(build(architecture).model.state_dict(), weights)
    encoders = load_open_clip(str(config), weights, CPU)
    for number in range(1, 8):
        assert encoders.is_cut(" ".join(["cat"] * number)) is (number > longest)


def write_words_tokenizer(folder: Path) -> None:
    """<s> words </s>, and <pad> is not 0."""
    names = ["<unk>", "<pad>", "<s>", "</s>", "<cls>", "cat"]
    vocabulary = {name: number for number, name in enumerate(names)}
    words = Tokenizer(WordLevel(vocabulary, "<unk>"))
    words.pre_tokenizer = WhitespaceSplit()
    words.post_processor = TemplateProcessing("<s> $A </s>", None, [("<s>", 2), ("</s>", 3)])
    PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        cls_token="<cls>",
    ).save_pretrained(folder)


def test_open_clip_takes_checkpoints_of_its_own_training(tmp_path: Path) -> None:
    config, weights = write_open_clip(tmp_path)
    state = {f"module.{name}": tensor for name, tensor in load_file(weights).items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "epoch_3.pt")
    encoders = load_open_clip(str(config), tmp_path / "epoch_3.pt", CPU)
    assert encoders.describe()["weights"]["sha256"] == sha256_file(tmp_path / "epoch_3.pt")


class _Evil:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("was-here"),))


def test_open_clip_runs_no_code_of_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config, _ = write_open_clip(tmp_path)
    for name, save in (("zip.pt", torch.save), ("plain.pt", lambda o, p: _pickle(o, p))):
        save({"state_dict": _Evil()}, tmp_path / name)
        with pytest.raises(UserError, match=f"{name} cannot be read as weights"):
            load_open_clip(str(config), tmp_path / name, CPU)
    assert not Path("was-here").exists()


def _pickle(value: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(value))


def test_weights_of_other_models(tmp_path: Path) -> None:
    config, weights = write_open_clip(tmp_path)
    state = load_file(weights)
    save_file(state | {"positional_embedding": torch.zeros(24, 8)}, tmp_path / "narrow.safetensors")
    torch.save([state], tmp_path / "list.pt")
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    torch.save({}, tmp_path / "empty.pt")
    save_file({"logit_scales": torch.zeros(1)}, tmp_path / "key.safetensors")
    for name, message in (
        ("narrow.safetensors", "text pos_embed width changed"),
        ("list.pt", "it holds no tensors by name"),
        ("tensor.pt", "it holds no tensors by name"),
        ("empty.pt", "it is empty"),
        ("key.safetensors", "Missing key"),
    ):
        check_mistake(
            str(config),
            tmp_path / name,
            f"{name} does not hold weights of canopy-tiny: .*{message}",
        )


@pytest.mark.parametrize(
    ("part", "size", "message"),
    [
        ("vision_cfg", {"image_size": 64}, "visual.positional_embedding is of 17 .* of 65"),
        ("text_cfg", {"context_length": 30}, " positional_embedding is of 24 .* of 30"),
    ],
)
@pytest.mark.parametrize("is_custom", [False, True])
def test_positions_are_not_stretched(
    part: str, size: dict[str, int], is_custom: bool, message: str, tmp_path: Path
) -> None:
    _, weights = write_open_clip(tmp_path)
    described = TINY_OPEN_CLIP | {part: TINY_OPEN_CLIP[part] | size, "custom_text": is_custom}
    config = tmp_path / "larger.json"
    config.write_text(json.dumps(described))
    check_mistake(str(config), weights, f"does not hold weights of larger:.*{message}")


def test_no_word_of_random_weights(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config, weights = write_open_clip(tmp_path)
    caplog.clear()
    load_open_clip(str(config), weights, CPU)
    assert caplog.messages == []


def test_weights_for_a_text_tower_of_transformers(tmp_path: Path) -> None:
    _, weights = write_open_clip(tmp_path)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertConfig(**sizes, intermediate_size=16, vocab_size=50).save_pretrained(tmp_path / "bert")
    text = {"hf_model_name": str(tmp_path / "bert"), "hf_pooler_type": "mean_pooler"}
    config = tmp_path / "bert.json"
    config.write_text(json.dumps(TINY_OPEN_CLIP | {"text_cfg": text}))
    check_mistake(str(config), weights, "does not hold weights of bert: .* of another kind")


def test_torchscript_is_imported_first(tmp_path: Path) -> None:
    config, _ = write_open_clip(tmp_path)
    path = tmp_path / "ViT-B-32.pt"
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), path)
    check_mistake(str(config), path, "TorchScript archive.*pretrain import method=openai weights=")


def check_mistake(model: str, weights: Path, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_open_clip(model, weights, CPU)
    assert "\n" not in str(caught.value)


def test_open_clip_says_what_is_wrong(tmp_path: Path) -> None:
    config, weights = write_open_clip(tmp_path)
    other = tmp_path / "other.safetensors"
    save_file({"visual.conv1.weight": torch.zeros(3)}, other)
    (tmp_path / "cut.safetensors").write_bytes(weights.read_bytes()[:-100])
    (tmp_path / "wrong.json").write_text("{}")
    for model, path, message in (
        ("ViT-B-23", weights, "no such model: did you mean ViT-B-32"),
        (str(tmp_path / "none.json"), weights, "there is no such file"),
        (str(tmp_path / "wrong.json"), weights, "no model configuration"),
        (str(config), tmp_path / "none.safetensors", "no such file of weights"),
        (str(config), other, "does not hold weights of canopy-tiny"),
        (str(config), tmp_path / "cut.safetensors", "cannot be read as weights"),
    ):
        check_mistake(model, path, message)
