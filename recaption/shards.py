"""WebDataset tars, read in place: ``KEY.jpg|png|webp|...``, ``KEY.txt`` (alt text), ``KEY.json``.

``webdataset``'s own reader streams a tar and stops in silence where it ends too early. Captioning
must account for every key, so a shard is indexed from its headers first (nothing is extracted):
that gives the number of images, finds keys given twice, and tells a finished tar from one that
was cut off.
"""

import codecs
import contextlib
import glob
import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from recaption.common.config import UserError
from recaption.tar_files import LINK_TYPES, BoundedTarInfo, damage_at, name_compression

#: Every format of the web, readable or not: what cannot be read is a row that says so.
IMAGE_EXTENSIONS = (
    *("jpg", "jpeg", "jfif", "png", "apng", "webp", "gif", "bmp", "avif", "heic", "heif"),
    *("tif", "tiff", "svg", "jxl", "jp2", "ico"),
)
#: Longer alt texts are cut; no page describes one picture with more.
MAX_TEXT_BYTES = 2**16
#: Larger metadata are not read.
MAX_JSON_BYTES = 2**24
#: Of a name as it is printed and stored; others would break lines and terminals.
ESCAPED = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}


@dataclass(frozen=True)
class Member:
    """Where the content of one file lies inside a tar."""

    name: str
    offset: int
    size: int


@dataclass
class Sample:
    """The members that share one key, wherever in the tar they stand."""

    key: str
    image: Member | None = None
    text: Member | None = None
    json: Member | None = None
    #: Why there is no image though the tar names one; ``code: detail``.
    image_failure: str | None = None


@dataclass(frozen=True)
class BadMember:
    """A member that was given up, and why."""

    name: str
    reason: str


@dataclass
class ShardIndex:
    """What a tar holds, by its headers."""

    #: One per key, in the order of the tar.
    samples: list[Sample] = field(default_factory=list)
    bad_members: list[BadMember] = field(default_factory=list)
    #: Of each other extension, how many members were passed over.
    ignored: Counter[str] = field(default_factory=Counter)
    #: Why the end of the tar could not be read; None for a whole tar.
    damage: str | None = None
    #: Bytes of the file behind the last readable header; how many never arrived is not known.
    num_lost_bytes: int = 0


@dataclass
class SampleTexts:
    """A sample's alt text and metadata, and what was wrong with them."""

    alt_text: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    #: Codes such as ``text-not-utf8``, for counting.
    problems: list[str] = field(default_factory=list)


class Shard:
    """An open tar: its index, and its members' bytes. Reading is safe from several threads.

    Args:
        path: of the tar.
        index: its index, where it is known already.
    """

    def __init__(self, path: Path, index: ShardIndex | None = None) -> None:
        self.path = path
        self.name = path.stem
        self.index = index or index_shard(path)
        self._descriptor = os.open(path, os.O_RDONLY)

    def read(self, member: Member) -> bytes:
        return os.pread(self._descriptor, member.size, member.offset)

    def read_texts(self, sample: Sample) -> SampleTexts:
        """Alt text and metadata; bytes that are not UTF-8 are replaced and counted."""
        texts = SampleTexts()
        if sample.text is None:
            texts.problems.append("text-missing")
        else:
            is_cut = sample.text.size > MAX_TEXT_BYTES
            data = self.read(replace(sample.text, size=min(sample.text.size, MAX_TEXT_BYTES)))
            if is_cut:
                texts.problems.append("text-cut")
            text = _to_text(data, "text", texts.problems, is_cut)
            texts.alt_text = text.strip()
        if sample.json is not None and sample.json.size > MAX_JSON_BYTES:
            texts.problems.append("json-too-large")
        elif sample.json is not None:
            content = _to_text(self.read(sample.json), "json", texts.problems)
            try:
                metadata = json.loads(content)
            except (ValueError, RecursionError):
                metadata = None
            if isinstance(metadata, dict):
                texts.metadata = metadata
            else:
                texts.problems.append("json-malformed")
        return texts

    def count_ignored(self) -> Counter[str]:
        """Notes that count the members of no known extension: ``ignored-cls``."""
        return Counter({f"ignored-{name}": count for name, count in self.index.ignored.items()})

    def estimate_num_samples(self, sizes: Sequence[int]) -> int:
        """Samples in shards of these sizes in bytes, of which the first is this one's."""
        return round(len(self.index.samples) * sum(sizes) / max(sizes[0], 1))

    def close(self) -> None:
        os.close(self._descriptor)


def _to_text(data: bytes, kind: str, problems: list[str], is_cut: bool = False) -> str:
    """``is_cut`` lets a text end in the middle of a character."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")
    try:
        return decoder().decode(data, final=not is_cut)
    except UnicodeDecodeError:
        problems.append(f"{kind}-not-utf8")
        return decoder(errors="replace").decode(data, final=True)


@contextlib.contextmanager
def open_shard(path: Path) -> Iterator[Shard]:
    shard = Shard(path)
    try:
        yield shard
    finally:
        shard.close()


def find_shards(pattern: str) -> list[Path]:
    """The tars of a folder, a single tar, or a glob such as ``data/train-*.tar``; sorted.

    Raises:
        UserError: nothing there, a folder without tars, or two tars of one name (their caption
            tables would have the same name).
    """
    path = Path(pattern)
    if path.is_dir():
        shards = sorted(path.glob("*.tar"))
        if not shards:
            raise UserError(f"no *.tar in the folder {path}")
    elif path.is_file():
        shards = [path]
    else:
        matches = (Path(match) for match in glob.glob(pattern, recursive=True))  # noqa: PTH207
        shards = sorted(match for match in matches if match.is_file())
        if not shards:
            raise UserError(f"no such folder, and no tar matches: {pattern}")
    by_name: dict[str, Path] = {}
    for shard in shards:
        other = by_name.setdefault(shard.stem, shard)
        if other is not shard:
            raise UserError(f"{other} and {shard} have the same name: rename one of them")
    return shards


def index_shard(path: Path) -> ShardIndex:
    """Reads the headers of a tar.

    A key may appear once per extension; what comes later under the same name is listed in
    ``bad_members``. A tar that ends too early, or has an unreadable header in the middle, gives
    what came before it, with ``damage`` set.
    """
    index = ShardIndex()
    samples: dict[str, Sample] = {}
    num_bytes = path.stat().st_size
    end = 0
    try:
        with tarfile.open(path, "r:", tarinfo=BoundedTarInfo) as tar:
            for info in tar:
                if info.size < 0 or tar.offset <= end < num_bytes:
                    # `tarfile` might read the same header for ever
                    raise tarfile.ReadError(f"a member of {info.size} bytes")
                _add_member(info, num_bytes, samples, index)
                end = min(tar.offset, num_bytes)
        index.damage = damage_at(path, tar.offset, num_bytes)
    except (tarfile.TarError, ValueError, OverflowError) as error:
        index.damage = f"cannot be read as a tar after byte {end}: {error}"
        compression = None if end else name_compression(path)
        if compression is not None:
            index.damage = f"it is compressed by {compression}: unpack it to a plain tar first"
    if index.damage is not None:
        index.num_lost_bytes = num_bytes - end
    index.samples = list(samples.values())
    return index


def _add_member(
    info: tarfile.TarInfo, num_bytes: int, samples: dict[str, Sample], index: ShardIndex
) -> None:
    if info.isdir():
        return
    name = storable_name(info.name).removeprefix("./")
    folder, _, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    extension = extension.lower()
    # `KEY.masks.png` has the extension `masks.png`: it belongs to the key but is not its image.
    kind = "image" if extension in IMAGE_EXTENSIONS else {"txt": "text"}.get(extension, extension)
    is_file = info.isreg() and not info.issparse()
    if kind not in ("image", "text", "json") or not stem:
        if not is_file:
            index.bad_members.append(BadMember(name, "not a regular file"))
            return
        first, dot, last = extension.rpartition(".")
        # Of `KEY.0.5.jpg` each key would have an extension of its own.
        index.ignored[("*" if first else "") + dot + last] += 1
        return
    key = f"{folder}/{stem}" if folder else stem
    sample = samples.setdefault(key, Sample(key))
    if not is_file:
        what = LINK_TYPES.get(info.type, "a sparse file" if info.issparse() else "no file")
        index.bad_members.append(BadMember(name, f"not a regular file but {what}"))
        if kind == "image" and sample.image_failure is None:
            sample.image_failure = f"not-a-file: the image is {what}"
        return
    if getattr(sample, kind) is not None:
        index.bad_members.append(BadMember(name, "duplicate key"))
        return
    if info.offset_data + info.size > num_bytes:
        index.bad_members.append(BadMember(name, "cut off with the tar"))
        if kind == "image":
            sample.image_failure = "image-cut-off: the tar ends inside it"
        return
    setattr(sample, kind, Member(name, info.offset_data, info.size))


def storable_name(name: str) -> str:
    """A member's name on one line of valid text: other bytes and control marks as ``\\xe9``."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return text.translate(ESCAPED)


def valid_text(text: str) -> str:
    """``text`` with lone surrogates (from broken file names or JSON escapes) replaced."""
    return text.encode("utf-8", errors="surrogatepass").decode("utf-8", errors="replace")
