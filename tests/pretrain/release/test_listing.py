"""Which releases are there."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import pretrain
from pretrain.release.listing import ModelRecord
from recaption.common.config import UserError

CONFIG = {
    "objective": {"name": "caft"},
    "model": {"embed_dim": 512, "image": {"size": 224}},
}
FACTS = {
    "name": "CAFT-B-16-CC3M-s90M-b2K",
    "architecture": "CAFT-B-16",
    "num_parameters": {"total": 172_110_000},
    "training": {"num_samples_seen": 90_000_000},
    "data": {"name": "CC3M"},
}


def write_release(folder: Path, **files: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "SHA256SUMS").touch()
    for name, tree in files.items():
        (folder / f"{name}.json").write_text(json.dumps(tree))
    return folder


def test_releases_by_name_with_what_they_say(tmp_path: Path) -> None:
    summary = {"summary": {"t2i_r1": 0.25}}
    full = tmp_path / "run" / "releases" / "one"
    write_release(full, config=CONFIG, release=FACTS, evaluation=summary)
    bare = write_release(tmp_path / "an-old-one", config=CONFIG)
    write_release(tmp_path / ".half-written.1.tmp", config=CONFIG)
    write_release(tmp_path / "sums-of-something-else")
    found = pretrain.list_models(tmp_path)
    assert found == [
        ModelRecord(
            *("CAFT-B-16-CC3M-s90M-b2K", full, "CAFT-B-16", "caft", 224, 512),
            *(172_110_000, 90_000_000, "CC3M", 0.25),
        ),
        ModelRecord("an-old-one", bare, None, "caft", 224, 512, None, None, None, None),
    ]
    assert pretrain.list_models(full) == found[:1]


def test_folders_that_hold_none_or_damaged_ones(tmp_path: Path) -> None:
    assert pretrain.list_models(tmp_path) == []
    with pytest.raises(UserError, match="is no folder"):
        pretrain.list_models(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"config": {"architectures": ["X"]}},
            r"or no release: its config\.json lacks 'objective'",
        ),
        ({"config": CONFIG, "evaluation": [1]}, "odd is damaged: a JSON file has another form"),
        ({"config": [1]}, "odd is damaged: a JSON file has another form"),
        ({"config": CONFIG, "release": "{"}, r"release\.json is damaged: it is not JSON"),
    ],
)
def test_a_folder_that_cannot_be_read_is_left_out(
    files: dict[str, Any], message: str, tmp_path: Path
) -> None:
    one = write_release(tmp_path / "one", config=CONFIG)
    odd = write_release(tmp_path / "odd", **files)
    if files.get("release") == "{":
        (odd / "release.json").write_text("{")
    with pytest.warns(UserWarning, match=f"left out: .*{message}"):
        found = pretrain.list_models(tmp_path)
    assert [model.folder for model in found] == [one]


def test_listing_imports_no_torch(tmp_path: Path) -> None:
    program = f"import sys, pretrain; pretrain.list_models({str(tmp_path)!r})"
    check = "assert 'torch' not in sys.modules and 'huggingface_hub' not in sys.modules"
    subprocess.run([sys.executable, "-c", f"{program}; {check}"], check=True)
