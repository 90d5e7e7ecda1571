"""A run, its release, and a copy of that which may be damaged."""

import json
from pathlib import Path

import pytest

from pretrain.evaluate import main as evaluate
from pretrain.release import main
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
