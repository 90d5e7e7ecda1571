"""Packs that are killed, and packs by several processes, against one left alone."""

import hashlib
import importlib.util
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from recaption.common.config import UserError
from recaption.pack.job import _locked
from tests.recaption.pack.packing import caption, noise, pack_shards
from tests.recaption.shard_files import write_tar

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("streaming") is None, reason="mosaicml-streaming is not installed"
)
NUM_TARS, NUM_SAMPLES = 5, 8
SMALL = ("shard_size=1", "bucket_size=1", "val_share=0.2", "image_format=png")


def content(folder: Path) -> dict[str, str]:
    """The hash of every file that must not depend on how it was made."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("pack.json", "config.yaml")
    }


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tars with tables, bad images and twins in other tars, and their pack by one process."""
    folder = tmp_path_factory.mktemp("source")
    for number in range(NUM_TARS):
        members = []
        for place in range(NUM_SAMPLES):
            seed = number * NUM_SAMPLES + place
            seed = 0 if place == 3 and number else seed  # a twin of the very first
            data = noise(seed)[: 20_000 if place == 5 else None]
            members += [(f"{place}.png", data), (f"{place}.txt", f"Picture {seed}.".encode())]
            members.append((f"{place}.json", b'{"sentences": ["Some noise is here"]}'))
        write_tar(folder / f"in/{number}.tar", members)
    caption(folder / "in", folder / "tables")
    summary = pack_shards(folder, *SMALL)
    assert summary.num_samples == NUM_TARS * (NUM_SAMPLES - 1) - (NUM_TARS - 1)
    assert summary.reasons == {"corrupt-image": NUM_TARS, "duplicate-image": NUM_TARS - 1}
    assert len(list((folder / "packed/train").glob("bucket-*"))) > 2
    return folder


def start(source: Path, output: Path) -> subprocess.Popen[bytes]:
    paths = [f"shards={source}/in", f"tables={source}/tables", f"output={output}"]
    command = [sys.executable, "-m", "recaption", "pack", *paths, "num_processes=2", *SMALL]
    return subprocess.Popen(command)


def test_several_processes_write_the_same(source: Path, tmp_path: Path) -> None:
    assert start(source, tmp_path / "packed").wait() == 0
    assert content(tmp_path / "packed") == content(source / "packed")
    assert [path.name for path in tmp_path.iterdir()] == ["packed"]


@pytest.mark.parametrize(("marker", "count"), [("pieces/*.json", 1), ("buckets/*.json", 1)])
def test_a_killed_pack_goes_on(source: Path, tmp_path: Path, marker: str, count: int) -> None:
    process = start(source, tmp_path / "packed")
    work = tmp_path / "packed.partial"
    while len(list(work.glob(marker))) < count:
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.005)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not psutil.wait_procs(children, timeout=10)[1], "outlived their parent"
    assert not (tmp_path / "packed").exists()

    done = {path: path.stat().st_mtime_ns for path in work.glob("pieces/*.json")}
    arguments = (f"shards={source}/in", f"output={tmp_path}/packed")
    summary = pack_shards(tmp_path, *arguments, *SMALL, tables=f"{source}/tables")
    assert summary.num_resumed_tars == len(done) >= count
    assert content(tmp_path / "packed") == content(source / "packed")
    assert [path.name for path in tmp_path.iterdir()] == ["packed"]


def test_what_other_settings_left_is_made_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise InterruptedError

    arguments = (f"shards={source}/in", f"output={tmp_path}/packed")
    with monkeypatch.context() as patch:
        patch.setattr("recaption.pack.job.make_plan", stop)
        with pytest.raises(InterruptedError):
            pack_shards(tmp_path, *arguments, "quality=30", tables=f"{source}/tables")
    assert len(list((tmp_path / "packed.partial/pieces").glob("*.json"))) == NUM_TARS
    summary = pack_shards(tmp_path, *arguments, *SMALL, tables=f"{source}/tables")
    assert summary.num_resumed_tars == 0
    assert content(tmp_path / "packed") == content(source / "packed")


def test_two_packs_of_one_output_are_an_error(source: Path, tmp_path: Path) -> None:
    work = tmp_path / "packed.partial"
    work.mkdir()
    arguments = (f"shards={source}/in", f"output={tmp_path}/packed")
    with _locked(work), pytest.raises(UserError, match="another pack is at work in"):
        pack_shards(tmp_path, *arguments, tables="")
