"""What a release is called."""

import pytest

from pretrain.config import PretrainConfig
from pretrain.release.naming import architecture_name, data_name, release_name, short_count
from recaption.common.config import load_config
from tests.places import CONFIGS


def config_of(*arguments: str) -> PretrainConfig:
    return load_config(PretrainConfig, [*arguments, "run=run", "data.train=train"])


def test_the_name_of_the_published_base_model() -> None:
    config = config_of(str(CONFIGS / "pretrain" / "caft_b_3m.yaml"))
    seen = config.train.num_steps * 2048
    assert release_name(config, "CC3M", seen, 2048) == "CAFT-B-16-CC3M-s90M-b2K"
    assert release_name(config, "CC3M", seen, 2048, is_mean=True).endswith("-b2K-ema")


def test_what_is_unknown_is_left_out() -> None:
    config = config_of()
    assert release_name(config, None, None, None) == "CAFT-B-16"
    assert release_name(config, None, 512, 64) == "CAFT-B-16-s512-b64"
    assert release_name(config, "my set / v2", 0, None) == "CAFT-B-16-my_set_v2"
    assert release_name(config, "..", 0, None) == "CAFT-B-16"


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("caft_ti", [], "CAFT-Ti-8"),
        ("caft_s", [], "CAFT-S-16"),
        ("caft_l", [], "CAFT-L-16"),
        ("flair_b", ["objective.name=flair"], "FLAIR-B-16"),
        ("vit_b", ["objective.name=siglip"], "SigLIP-B-16"),
        ("vit_b", ["objective.name=clip", "model.image.vit.depth=24"], "CLIP-w768d24-16"),
        ("vit_ti", ["objective.name=clip"], "CLIP-w96d10-8"),
    ],
)
def test_architectures(name: str, arguments: list[str], expected: str) -> None:
    file = str(CONFIGS / "model" / f"{name}.yaml")
    plain = ["data.captions.name=whole"] if name.startswith(("vit", "flair")) else []
    assert architecture_name(config_of(file, *arguments, *plain)) == expected


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ("/sets/CC3M/train", "CC3M"),
        ("s3://bucket/yfcc15m/train", "yfcc15m"),
        ("docci", "docci"),
        ("demo/packed/train", None),
        ("unknown", None),
        ("../train", None),
        ("../cc3m/train", "cc3m"),
        ("~/train", None),
        ("/home/alice/train", None),
        ("/home/alice", None),
        ("/home/alice/cc3m/train", "cc3m"),
        ("~alice/shards", None),
        ("s3://train", None),
    ],
)
def test_data(train: str, expected: str | None) -> None:
    assert data_name(train) == expected


def test_the_own_home_is_no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    assert data_name("/users/alice/train") == "alice"
    monkeypatch.setenv("HOME", "/users/alice")
    assert data_name("/users/alice/train") is None


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (7, "7"),
        (999, "999"),
        (1000, "1K"),
        (1_280_000, "1.3M"),
        (9_960_000, "10M"),
        (90_347_520, "90M"),
        (999_600, "1M"),
        (12_800_000_000, "13B"),
        (2_500_000_000_000, "2.5T"),
    ],
)
def test_counts(number: int, expected: str) -> None:
    assert short_count(number) == expected


@pytest.mark.parametrize(
    ("batch", "expected"), [(96, "b96"), (1024, "b1K"), (32768, "b32K"), (88_064, "b88K")]
)
def test_batches(batch: int, expected: str) -> None:
    assert release_name(config_of(), None, None, batch) == f"CAFT-B-16-{expected}"
