"""Paths of somebody's machine in the texts of a release."""

import json
from pathlib import Path

import pytest

from pretrain.release.privacy import private_paths


@pytest.mark.parametrize(
    "path",
    [
        "/home/alice/x",
        "/home/alice/my%20data/x",
        "/scratch/alice/shards/*.mds",
        "~/train",
        "~alice/train",
        "file:///home/alice/x",
        "local-dir:/home/alice/m",
        "alice@host:/home/alice/x",
        "alice@login.cluster.org:data/x",
        "C:/Users/alice",
        "C:\\Users\\alice",
        "c:\\Users",
        "\\\\srv\\share",
        "\\\\srv.lan\\share$\\alice",
        "s3://bucket/x",
        "gs://bucket/x",
        "hdfs://namenode/x",
        "sftp://host/x",
    ],
)
def test_a_path_is_found(path: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(f"Nothing.\nFrom {path} it came.\n")
    (tmp_path / "config.json").write_text(json.dumps({"train": path, "and": 1}))
    (tmp_path / "more.yaml").write_text(f"train: {path}\n")
    found = [line.split(":")[0] for line in private_paths(tmp_path)]
    assert found == ["README.md, line 2", "config.json, line 1", "more.yaml, line 1"]


@pytest.mark.parametrize(
    "text",
    [
        "1 /2/ 3",
        "24/7 and/or 3/4, w/o it; km/h, a / b / c",
        "https://example.org/home/alice/x?y=/a/b and http://127.0.0.1:8000/-/tree/main",
        "(https://example.org/a/b)",
        "hf://lab/name, doi:10.1/abc, arXiv 2010.11929",
        "<b>bold</b> a</td></tr>",
        "image/png, torch.Size([1, 24]), 10:30, C: yes, A:B",
        "somebody@example.org: hello, or somebody@example.org",
        "a regular expression \\d+\\w",
        "about ~5 of 10, ~/, ./configs/model/caft_b.yaml, ../x/y, configs/model/x.yaml",
    ],
)
def test_what_is_no_path(text: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(text)
    (tmp_path / "config.json").write_text(json.dumps([text]))
    assert private_paths(tmp_path) == []
