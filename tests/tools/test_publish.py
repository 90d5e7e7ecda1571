"""A release goes to a hub and comes back, by huggingface_hub against a server of this process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pretrain.checksums import write_checksums
from recaption.common.config import UserError
from tests.model_hub import Hub, serve_hub
from tests.places import CHECKOUT
from tools.publish import check_publishable, main

FILES = {
    "README.md": "# CAFT-B-16\nSee https://example.org/a/b/c, half/half and 1 / 2.\n",
    "config.json": "{}\n",
    "model.safetensors": "numbers",
    "tokenizer/merges.txt.gz": "merges",
    "samples/captions.json": "[]\n",
}
FETCH = """
from pretrain.release.hub import fetch
print(fetch("hf://lab/caft"))
print(fetch("hf://lab/caft", whole=True))
try:
    fetch("hf://lab/none")
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def release(tmp_path: Path) -> Path:
    folder = tmp_path / "CAFT-B-16"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    write_checksums(folder)
    return folder


def python(hub: Hub, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """With a cache of its own, and that hub as the only one."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "cache")}
    return subprocess.run(
        [sys.executable, *arguments], cwd=CHECKOUT, env=environment, capture_output=True, text=True
    )


def test_nothing_is_sent_unless_asked_for(
    release: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        main([f"release={release}", "repository=lab/caft", "--json"])
        assert not hub.files
    *_, sentence, figures = capsys.readouterr().out.splitlines()
    assert sentence.startswith("6 files, ") and "would go to lab/caft (branch main)" in sentence
    size = sum(path.stat().st_size for path in release.rglob("*") if path.is_file())
    assert json.loads(figures) == {"num_files": 6, "num_bytes": size, "uploaded": False}


def test_a_release_goes_to_the_hub_and_comes_back(release: Path, tmp_path: Path) -> None:
    (release / ".cache").mkdir()
    (release / ".cache" / "secret").touch()
    command = ("-m", "tools.publish", f"release={release}", "repository=lab/caft", "upload=true")
    with serve_hub() as hub:
        older = {".gitattributes": b"", "older.json": b"", "README.md": b"# Older"}
        sums = "".join(f"{'0' * 64}  {name}\n" for name in ("older.json", "README.md"))
        hub.files["lab/caft"] = older | {"SHA256SUMS": sums.encode()}
        done = python(hub, tmp_path, *command, "--json")
        assert done.returncode == 0, done.stderr
        assert [line for line in done.stdout.splitlines() if "deleted" in line] == [
            "  deleted there: older.json"
        ]
        assert hub.is_private == {"lab/caft": True}
        assert hub.messages == ["Release CAFT-B-16"]
        assert hub.files["lab/caft"].keys() == {*FILES, "SHA256SUMS", ".gitattributes"}
        url = f"{hub.url}/lab/caft/commit/{hub.commit_id('lab/caft')}"
        assert json.loads(done.stdout.splitlines()[-1])["url"] == url

        hub.files["lab/caft"]["pytorch_model.bin"] = b"a pickle"
        done = python(hub, tmp_path, "-c", FETCH)
        assert done.returncode == 0, done.stderr
    needed, whole, error = done.stdout.splitlines()
    assert needed == whole
    fetched = {path.relative_to(whole).as_posix() for path in Path(whole).rglob("*.*")}
    assert fetched == {*FILES}
    assert hub.sent.index("README.md") > max(map(hub.sent.index, ("config.json", "SHA256SUMS")))
    assert "pytorch_model.bin" not in hub.sent
    for name, content in FILES.items():
        assert (Path(whole) / name).read_text() == content
    assert error.startswith("UserError hf://lab/none cannot be fetched (")


@pytest.mark.parametrize(
    "there",
    [
        {"weights.bin": b"theirs"},
        {"weights.bin": b"theirs", "SHA256SUMS": f"{'0' * 64}  README.md\n".encode()},
    ],
)
def test_what_no_release_has_put_there_is_deleted_only_when_asked_for(
    release: Path, tmp_path: Path, there: dict[str, bytes]
) -> None:
    command = ("-m", "tools.publish", f"release={release}", "repository=lab/caft", "upload=true")
    with serve_hub() as hub:
        hub.files["lab/caft"] = {".gitattributes": b"", "README.md": b"theirs"} | there
        before = dict(hub.files["lab/caft"])
        done = python(hub, tmp_path, *command)
        assert done.returncode == 2
        names = "weights.bin" if len(there) == 2 else "README.md, weights.bin"
        assert f"no release has put there: {names}; replace=true deletes them" in done.stderr
        assert hub.files["lab/caft"] == before
        done = python(hub, tmp_path, *command, "replace=true")
        assert done.returncode == 0, done.stderr
        assert "deleted there: weights.bin" in done.stdout
        assert hub.files["lab/caft"].keys() == {*FILES, "SHA256SUMS", ".gitattributes"}


def test_a_hub_that_is_not_there_is_one_line(release: Path, tmp_path: Path) -> None:
    hub = Hub()
    hub.url = "http://127.0.0.1:9"
    command = ("-m", "tools.publish", f"release={release}", "repository=lab/caft", "upload=true")
    done = python(hub, tmp_path, *command)
    assert done.returncode == 2
    assert done.stderr.startswith("error: lab/caft cannot be written (")
    assert done.stderr.count("\n") == 1
    done = python(hub, tmp_path, "-c", FETCH.replace("lab/none", "lab/caft"))
    assert "UserError: hf://lab/caft cannot be fetched (" in done.stderr.splitlines()[-1]


def test_the_package_of_the_hub_is_asked_for(
    release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    main([f"release={release}", "repository=lab/caft"])
    with pytest.raises(UserError, match="upload=true needs the package huggingface_hub"):
        main([f"release={release}", "repository=lab/caft", "upload=true"])


@pytest.mark.parametrize(
    "text",
    [
        "in /home/alice/runs/a",
        '{"train": "/sets/cc3m"}',
        "s3://bucket/sets",
        "~/runs/a",
        r"C:\runs",
    ],
)
def test_a_path_of_somebodys_machine_is_named(release: Path, text: str) -> None:
    assert check_publishable(release).keys() == {*FILES, "SHA256SUMS"}
    (release / "release.json").write_text(f"{{}}\n{text}\n")
    write_checksums(release)
    with pytest.raises(UserError, match=r"machine: release\.json, line 2: "):
        check_publishable(release)


def test_what_may_not_be_published(release: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="write OWNER/NAME"):
        main([f"release={release}", "repository=caft"])
    with pytest.raises(UserError, match="holds no SHA256SUMS"):
        check_publishable(tmp_path)
    (release / "config.json").write_text('{"changed": true}')
    with pytest.raises(UserError, match=r"config\.json is damaged"):
        check_publishable(release)
    (release / "optimizer.pt").touch()
    write_checksums(release)
    with pytest.raises(UserError, match=r"optimizer\.pt may hold code"):
        check_publishable(release)
