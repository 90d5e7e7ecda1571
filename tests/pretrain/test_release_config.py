"""A release opens by what it says of its encoders, whatever it says of training."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import pretrain
from pretrain.checksums import write_checksums
from pretrain.config import PretrainConfig
from pretrain.inference import RELEASE_CONFIG, RELEASE_TOKENIZER, load_for_inference
from pretrain.release_config import FORMAT, encoders_tree, read_release_config, whole_tree
from recaption.common.config import ConfigError, UserError, read_config
from tests.pretrain.trainruns import TINY
from tests.pretrain.untrained import TINY_CLIP, write_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", TINY)


@pytest.fixture
def config(run: Path) -> PretrainConfig:
    return read_config(PretrainConfig, run / "config.yaml")


def test_what_only_training_knows_may_change(run: Path, tmp_path: Path) -> None:
    original, released = load_for_inference(run), tmp_path / "released"
    original.tokenizer.save(released / RELEASE_TOKENIZER)
    shutil.copy(original.weights, released)
    tree = whole_tree(original.config)
    tree["train"]["a_key_of_another_version"] = 1
    tree["preflight"] = "none"
    tree["data"]["batch_size"] = 0
    tree["a_section_of_another_version"] = tree.pop("ranks")
    del tree["format"], tree["optim"]
    (released / RELEASE_CONFIG).write_text(json.dumps(tree))
    write_checksums(released)
    caption = "A cat sleeps. It is grey."
    found = pretrain.load(released)
    assert torch.equal(found.encode_text(caption), pretrain.load(run).encode_text(caption))
    assert found.inference.config.data.image == original.config.data.image


@pytest.mark.parametrize("tree_of", [whole_tree, encoders_tree])
def test_the_encoders_are_the_same(tree_of, config: PretrainConfig) -> None:
    config.model.image.hierarchical.superpixels.spixelfcn.weights = "network.safetensors"
    config.data.image.resize = "shortest"
    tree = json.loads(json.dumps(tree_of(config)))
    assert tree["format"] == FORMAT
    read = read_release_config(tree, "here")
    assert (read.model, read.objective) == (config.model, config.objective)
    assert (read.data.captions, read.data.image) == (config.data.captions, config.data.image)


def test_encoders_alone_name_no_place(config: PretrainConfig) -> None:
    config.model.image.hierarchical.superpixels.spixelfcn.weights = "/home/alice/network.pt"
    assert "/" not in json.dumps(encoders_tree(config))


def test_what_opening_reads_is_read_strictly(config: PretrainConfig) -> None:
    tree = whole_tree(config)
    for section in ("model", "objective"):
        changed = tree | {section: tree[section] | {"odd": 1}}
        with pytest.raises(ConfigError, match=f"here: unknown key '{section}.odd'"):
            read_release_config(changed, "here")
        with pytest.raises(ConfigError, match=f"here says nothing of the {section}"):
            read_release_config({k: v for k, v in tree.items() if k != section}, "here")
    data = {"captions": tree["data"]["captions"] | {"odd": 1}}
    with pytest.raises(ConfigError, match=r"here: unknown key 'data\.captions\.odd'"):
        read_release_config(tree | {"data": data}, "here")
    with pytest.raises(ConfigError, match=r"here is of format 2 and .* reads up to 1: update it"):
        read_release_config(tree | {"format": 2}, "here")
    with pytest.raises(ConfigError, match="here says nothing of the data"):
        read_release_config(tree | {"data": []}, "here")
    with pytest.raises(ConfigError, match="here holds no configuration"):
        read_release_config([], "here")


@pytest.mark.parametrize("size", [0, -8])
def test_pictures_of_no_size(size: int, run: Path) -> None:
    with pytest.raises(UserError, match=f"image_size={size}: it must be at least 1"):
        pretrain.load(run, image_size=size)
    with pytest.raises(ConfigError, match=rf"model\.image\.size={size}: it must be at least 1"):
        write_run(run / "other", TINY_CLIP, f"model.image.size={size}")
