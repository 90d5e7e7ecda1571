"""Releases by their names on a hub."""

from pathlib import Path

import huggingface_hub
import huggingface_hub.errors
import pytest
import torch

import pretrain
from pretrain.inference import load_for_inference
from pretrain.release.command import _write
from pretrain.release.facts import Given, gather_facts
from pretrain.release.hub import fetch
from recaption.common.config import UserError
from tests.model_hub import Hub
from tests.pretrain.untrained import TINY_CLIP, write_run


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """As the command writes it, without the proof in another process."""
    run = write_run(tmp_path / "run", TINY_CLIP)
    inference, folder = load_for_inference(run), tmp_path / "release"
    folder.mkdir()
    _write(run, inference, gather_facts(run, inference, Given()), folder)
    return folder


def put(hub: Hub, release: Path) -> None:
    paths = [path for path in release.rglob("*") if path.is_file()]
    hub.files["lab/clip"] = {p.relative_to(release).as_posix(): p.read_bytes() for p in paths}


def test_a_name_opens_as_its_folder_does(hub: Hub, release: Path) -> None:
    put(hub, release)
    expected = pretrain.load(release).encode_text("A cat sleeps.")
    assert torch.equal(pretrain.load("hf://lab/clip").encode_text("A cat sleeps."), expected)
    read = {"config.json", "model.safetensors", "SHA256SUMS"}
    assert {*hub.sent} == {*read, "tokenizer/bpe_simple_vocab_16e6.txt.gz"}
    pretrain.load("hf://lab/clip@main", verify=True)
    assert hub.sent.count("model.safetensors") == 1 and "README.md" in hub.sent


def test_what_was_changed_on_the_hub_is_refused(hub: Hub, release: Path) -> None:
    put(hub, release)
    hub.files["lab/clip"]["model.safetensors"] += b"\0"
    with pytest.raises(UserError, match=r"model\.safetensors is damaged: its checksum"):
        pretrain.load("hf://lab/clip")


def test_what_is_in_the_cache_needs_no_hub(
    hub: Hub, release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(hub, release)
    folder = fetch("hf://lab/clip")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert fetch("hf://lab/clip") == folder
    with pytest.raises(UserError, match=r"hf://lab/other cannot be fetched \(.*\): check name and"):
        fetch("hf://lab/other")


def test_a_name_that_the_hub_does_not_have_says_so(hub: Hub) -> None:
    with pytest.raises(
        UserError, match=r"\(404 Client Error.*: Repository Not Found for url: http"
    ):
        fetch("hf://lab/none")


def test_errors_of_another_http_library_are_one_line(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """huggingface_hub from 1 on asks by httpx, whose errors are no OSErrors."""

    class HTTPError(Exception):
        pass

    class HubError(HTTPError, OSError):
        pass

    class ConnectError(HTTPError):
        pass

    def refuse(*args: object, **kwargs: object) -> None:
        raise ConnectError("all connections failed")

    monkeypatch.setattr(huggingface_hub.errors, "HfHubHTTPError", HubError)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(UserError, match=r"cannot be fetched \(all connections failed\): check"):
        fetch("hf://lab/clip")


@pytest.mark.parametrize("name", ["hf://clip", "hf://lab/clip/more", "hf://lab/clip@", "hf://"])
def test_odd_names(name: str) -> None:
    with pytest.raises(UserError, match=r"is no name on a hub: write hf://OWNER/NAME\[@REVISION\]"):
        pretrain.load(name)
