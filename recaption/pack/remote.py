"""Files under ``s3://`` and ``gs://``, by pyarrow's own file systems.

Credentials and region come from where AWS and Google look for them. Another S3 server is named by
``S3_ENDPOINT_URL``, which mosaicml-streaming reads, too, or ``AWS_ENDPOINT_URL``; one that stands
in for Google's by ``STORAGE_EMULATOR_HOST``.
"""

import contextlib
import functools
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

from recaption.common.config import UserError

SCHEMES = ("s3", "gs")
#: Bytes moved at once.
CHUNK = 2**23


@dataclass(frozen=True)
class RemoteFile:
    """A file, or a folder, which has no size."""

    uri: str
    size: int | None
    mtime_ns: int


def is_remote(path: str) -> bool:
    return "://" in path


def list_files(uri: str) -> list[RemoteFile]:
    """What lies in a remote folder, by name; nothing where it does not exist."""
    system, path = _open(uri)
    with _errors_of(uri):
        infos = system.get_file_info(fs.FileSelector(path, allow_not_found=True))
    return sorted((_to_file(uri, info) for info in infos), key=lambda file: file.uri)


def find_file(uri: str) -> RemoteFile | None:
    system, path = _open(uri)
    with _errors_of(uri):
        info = system.get_file_info(path)
    return _to_file(uri, info) if info.type == fs.FileType.File else None


def download(uri: str, path: Path) -> None:
    system, source = _open(uri)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _errors_of(uri), system.open_input_stream(source) as stream, path.open("wb") as file:
        shutil.copyfileobj(stream, file, CHUNK)


def upload(path: Path, uri: str) -> None:
    system, target = _open(uri)
    with (
        _errors_of(uri),
        path.open("rb") as file,
        system.open_output_stream(target) as stream,
    ):
        shutil.copyfileobj(file, stream, CHUNK)


def read_text(uri: str) -> str:
    system, path = _open(uri)
    with _errors_of(uri), system.open_input_stream(path) as stream:
        return bytes(stream.read()).decode()


def _to_file(uri: str, info: fs.FileInfo) -> RemoteFile:
    scheme = uri.partition("://")[0]
    size = info.size if info.type == fs.FileType.File else None
    return RemoteFile(f"{scheme}://{info.path}", size, info.mtime_ns or 0)


def _open(uri: str) -> tuple[fs.FileSystem, str]:
    scheme, _, path = uri.partition("://")
    if scheme not in SCHEMES:
        raise UserError(f"{uri}: remote paths start with {' or '.join(f'{s}://' for s in SCHEMES)}")
    names = (
        ("STORAGE_EMULATOR_HOST",) if scheme == "gs" else ("S3_ENDPOINT_URL", "AWS_ENDPOINT_URL")
    )
    endpoint = next(filter(None, map(os.environ.get, names)), None)
    return _file_system(scheme, endpoint), path.rstrip("/")


@functools.cache
def _file_system(scheme: str, endpoint: str | None) -> fs.FileSystem:
    if scheme == "s3":
        return fs.S3FileSystem(endpoint_override=endpoint)
    if endpoint is None:
        return fs.GcsFileSystem()
    protocol, _, host = endpoint.rpartition("://")
    return fs.GcsFileSystem(anonymous=True, scheme=protocol or "http", endpoint_override=host)


@contextlib.contextmanager
def _errors_of(uri: str) -> Iterator[None]:
    """Arrow's errors name no file, and are many lines long."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:  # of the local side
            raise
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{uri} cannot be reached: {reason}; then run the same again") from None
