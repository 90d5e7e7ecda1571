"""Tars, tables and training shards under s3:// and gs://, on servers that run here."""

import contextlib
import hashlib
import importlib.util
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from recaption.common.config import UserError
from recaption.pack import remote
from recaption.pack.inputs import find_tars
from tests.daemons import free_ports
from tests.recaption.pack.packing import caption, pack_shards, read_samples
from tests.recaption.shard_files import sample, write_tar

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("streaming") is None, reason="mosaicml-streaming is not installed"
)


@contextlib.contextmanager
def serving(*command: str) -> Iterator[str]:
    """Runs ``python COMMAND`` with the port in it; gives its address when it answers."""
    (port,) = free_ports(1)
    words = [word.format(port=port) for word in command]
    process = subprocess.Popen([sys.executable, *words], stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            assert process.poll() is None, f"{command} ended"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket on moto's server."""
    import boto3

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with serving("-m", "moto.server", "-H", "127.0.0.1", "-p", "{port}") as address:
        monkeypatch.setenv("S3_ENDPOINT_URL", address)
        boto3.client("s3", endpoint_url=address).create_bucket(Bucket="bucket")
        yield "s3://bucket"


@pytest.fixture
def gs(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = (
        "from gcp_storage_emulator.server import create_server as c; import time; "
        "c('127.0.0.1', {port}, in_memory=True, default_bucket='bucket').start(); time.sleep(600)"
    )
    with serving("-c", server) as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        yield "gs://bucket"


def fill(folder: Path) -> None:
    """Two tars with tables, and their pack."""
    for number in range(2):
        members = [m for k in range(3) for m in sample(f"k{number}{k}", 3 * number + k)]
        write_tar(folder / f"in/{number}.tar", [*members, (f"bad{number}.jpg", b"")])
    caption(folder / "in", folder / "tables")
    pack_shards(folder)


def upload_folder(folder: Path, uri: str) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            remote.upload(path, f"{uri}/{path.relative_to(folder).as_posix()}")


def content(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*.*")
        if path.is_file()
        and path.name not in ("pack.json", "config.yaml", "data_card.json")
        and path.suffix != ".md"
    }


def test_from_s3_to_s3(tmp_path: Path, s3: str) -> None:
    from streaming import StreamingDataset

    fill(tmp_path)
    upload_folder(tmp_path / "in", f"{s3}/in")
    upload_folder(tmp_path / "tables", f"{s3}/tables")
    paths = (f"shards={s3}/in", f"output={s3}/packed", f"work={tmp_path}/work")
    summary = pack_shards(tmp_path, *paths, "num_processes=2", tables=f"{s3}/tables")
    assert (summary.num_samples, summary.reasons) == (6, {"empty-image": 2})
    assert not (tmp_path / "work").exists()

    expected = content(tmp_path / "packed")
    for name in expected:
        remote.download(f"{s3}/packed/{name}", tmp_path / "copy" / name)
    assert content(tmp_path / "copy") == expected
    local = str(tmp_path / "local")
    dataset = StreamingDataset(remote=f"{s3}/packed", local=local, batch_size=1, shuffle=False)
    keys = [dataset[index]["key"] for index in range(len(dataset))]
    assert sorted(keys) == sorted(read_samples(tmp_path / "packed"))

    assert pack_shards(tmp_path, *paths, tables=f"{s3}/tables").was_finished
    with pytest.raises(UserError, match="s3://bucket/packed was packed from other shards"):
        pack_shards(tmp_path, paths[0], paths[1], paths[2], f"shards={s3}/in/0.tar", tables="")
    with pytest.raises(UserError, match="s3://bucket/in exists and holds no packed shards"):
        pack_shards(tmp_path, *paths, f"output={s3}/in", tables="")


def test_what_is_wrong_with_a_remote_path(tmp_path: Path, s3: str) -> None:
    path = write_tar(tmp_path / "in/a.tar", sample("k", 0))
    remote.upload(path, f"{s3}/in/a.tar")
    remote.upload(path, f"{s3}/in/b.tar")
    assert [tar.name for tar in find_tars(f"{s3}/in")] == ["a", "b"]
    assert [tar.name for tar in find_tars(f"{s3}/in/[b-z].tar")] == ["b"]
    assert [tar.name for tar in find_tars(f"{s3}/in/a.tar")] == ["a"]
    with pytest.raises(UserError, match="no tar at s3://bucket/nothing"):
        find_tars(f"{s3}/nothing")
    with pytest.raises(UserError, match="ftp://host/in: remote paths start with s3:// or gs://"):
        find_tars("ftp://host/in")
    arguments = (f"shards={s3}/in", f"output={s3}/packed")
    with pytest.raises(UserError, match="output is remote: give work=FOLDER"):
        pack_shards(tmp_path, *arguments, tables="")
    work = f"work={tmp_path}/work"
    with pytest.raises(UserError, match=r"s3://bucket/tables/a.parquet is not finished"):
        pack_shards(tmp_path, *arguments, work, tables=f"{s3}/tables")
    with pytest.raises(UserError, match=r"s3://absent/packed/\S+ cannot be reached: .*NO_SUCH_BU"):
        pack_shards(tmp_path, f"shards={s3}/in", "output=s3://absent/packed", work, tables="")


def test_from_google_to_google(tmp_path: Path, gs: str) -> None:
    fill(tmp_path)
    upload_folder(tmp_path / "in", f"{gs}/in")
    upload_folder(tmp_path / "tables", f"{gs}/tables")
    paths = (f"shards={gs}/in/*.tar", f"output={gs}/packed", f"work={tmp_path}/work")
    assert pack_shards(tmp_path, *paths, tables=f"{gs}/tables").num_samples == 6
    for name in content(tmp_path / "packed"):
        remote.download(f"{gs}/packed/{name}", tmp_path / "copy" / name)
    assert content(tmp_path / "copy") == content(tmp_path / "packed")
