"""A run, its release, a copy that may be damaged, and a model hub of this process alone."""

import json
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from pretrain.evaluate import main as evaluate
from pretrain.release import main
from tests.model_hub import Hub, serve_hub
from tests.pretrain.untrained import write_boxed_shards, write_run


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def released(run: Path) -> Path:
    main([f"run={run}", "data=CC3M", "hardware=2 x CPU", "licence=apache-2.0"])
    (folder,) = (run / "releases").iterdir()
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


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The only hub, with an empty cache."""
    with serve_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        huggingface_hub.utils.reset_sessions()
        yield hub
    huggingface_hub.utils.reset_sessions()
