"""What can be told without vLLM; ``test_captions_end_to_end`` runs it."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recaption.common.config import ConfigError, UserError
from recaption.engine import EngineConfig, build_engine
from recaption.engine.models import fingerprint_folder, resolve_model
from recaption.engine.vllm import VllmEngine
from recaption.engine.vllm_settings import VllmConfig, engine_arguments, vllm_origin
from recaption.images import ImageConfig
from recaption.prompts import PromptConfig, SamplingConfig

PROMPT = PromptConfig()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "some_model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed here")
def test_without_vllm_the_error_says_what_to_install() -> None:
    with pytest.raises(UserError, match=r"make .venv-recaption.*engine.name=existing needs none"):
        build_engine(EngineConfig(), {"long": PROMPT})


def test_an_unknown_engine() -> None:
    with pytest.raises(ConfigError, match="choose vllm or server or existing"):
        EngineConfig(name="vlm")


def test_the_model_is_a_folder_or_a_name(model: Path, tmp_path: Path) -> None:
    assert resolve_model(str(model)) == model
    assert resolve_model("org/model-7b") == "org/model-7b"
    with pytest.raises(UserError, match="no folder"):
        resolve_model(str(tmp_path / "absent"))
    with pytest.raises(UserError, match="holds no config"):
        resolve_model(str(tmp_path))


def test_the_revision_of_a_folder_is_its_content(model: Path, tmp_path: Path) -> None:
    before = fingerprint_folder(model)
    assert fingerprint_folder(model) == before
    (model / "README.md").write_text("What it is")
    assert fingerprint_folder(model) == before
    (model / "model.safetensors").write_bytes(b"WEIGHTS")
    assert fingerprint_folder(model) != before


def test_of_large_files_pieces_everywhere_decide(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recaption.engine.models.MAX_HASHED_BYTES", 10)
    weights = model / "model.safetensors"
    size = 40 * 2**20
    fingerprints = set()
    for changed in (0, size // 2, size - 1):
        with weights.open("wb") as file:
            file.truncate(size)
            file.seek(changed)
            file.write(b"x")
        fingerprints.add(fingerprint_folder(model))
    assert len(fingerprints) == 3


def test_the_origin_tells_prompts_samplings_and_models_apart(model: Path) -> None:
    config = VllmConfig(model=str(model))
    images = ImageConfig()
    origin = vllm_origin(config, "long", PROMPT, images)
    assert (origin.prompt_id, origin.model) == ("long", "some_model")
    faster = replace(config, max_in_flight=3, kwargs={"tensor_parallel_size": 2})
    assert origin == vllm_origin(faster, "long", PROMPT, images)
    others = [
        vllm_origin(config, "long", replace(PROMPT, text="What?"), images),
        vllm_origin(
            config, "long", replace(PROMPT, sampling=SamplingConfig(temperature=1.0)), images
        ),
        vllm_origin(config, "long", PROMPT, ImageConfig(max_side=336)),
        vllm_origin(config, "long", PROMPT, ImageConfig(max_pixels=1000)),
        vllm_origin(replace(config, revision="v2"), "long", PROMPT, images),
        vllm_origin(replace(config, dtype="half"), "long", PROMPT, images),
        vllm_origin(replace(config, max_model_len=64), "long", PROMPT, images),
        vllm_origin(replace(config, kwargs={"quantization": "fp8"}), "long", PROMPT, images),
    ]
    assert len({origin.sampling_hash, *(other.sampling_hash for other in others)}) == 9


def test_arguments_of_the_engine() -> None:
    config = VllmConfig(
        max_model_len=512, kwargs={"tensor_parallel_size": 2, "enforce_eager": True}
    )
    arguments = engine_arguments(config, "folder", on_cpu=False)
    assert arguments["trust_remote_code"] is False
    assert arguments["mm_processor_cache_gb"] == 0
    assert arguments["max_model_len"] == 512
    assert (arguments["tensor_parallel_size"], arguments["enforce_eager"]) == (2, True)
    assert arguments["dtype"] == "auto"
    assert engine_arguments(VllmConfig(), "folder", on_cpu=True)["dtype"] == "float32"
    assert engine_arguments(VllmConfig(dtype="half"), "m", on_cpu=True)["dtype"] == "half"


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"trust_remote_code": True}, "trust_remote_code stays off"),
        ({"model": "other"}, "give it as engine.vllm.model"),
        ({"seed": 3}, "give it as prompts.<name>.sampling.seed"),
    ],
)
def test_what_the_arguments_of_the_engine_may_not_say(
    kwargs: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(ConfigError, match=message):
        VllmEngine(VllmConfig(kwargs=kwargs), {"long": PROMPT})
