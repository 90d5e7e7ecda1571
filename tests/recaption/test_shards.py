import io
import tarfile
from pathlib import Path

import pytest

from recaption.common.config import UserError
from recaption.shards import MAX_TEXT_BYTES, find_shards, index_shard, open_shard
from recaption.tar_files import MAX_PADDING
from tests.recaption.shard_files import sample, write_tar


def test_groups_members_by_key_whatever_their_order(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "a.tar",
        [("dir/a.JPG", b"ia"), ("./b.png", b"ib"), ("dir/a.txt", b"ta"), ("b.json", b"{}")],
    )
    index = index_shard(path)
    assert [item.key for item in index.samples] == ["dir/a", "b"]
    assert index.damage is None and not index.bad_members
    with open_shard(path) as shard:
        first, second = shard.index.samples
        assert first.image and shard.read(first.image) == b"ia"
        assert first.text and shard.read(first.text) == b"ta"
        assert second.json and shard.read(second.json) == b"{}"


def test_a_member_with_two_dots_is_not_the_image(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("k.masks.png", b"masks"), ("k.png", b"image")])
    with open_shard(path) as shard:
        (only,) = shard.index.samples
        assert only.image and shard.read(only.image) == b"image"


def test_of_a_duplicate_key_the_first_wins_and_the_rest_is_listed(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "a.tar",
        [("k.jpg", b"first"), ("k.txt", b"t"), ("l.jpg", b"l"), ("k.jpg", b"late"), ("k.png", b"")],
    )
    with open_shard(path) as shard:
        assert [item.key for item in shard.index.samples] == ["k", "l"]
        image = shard.index.samples[0].image
        assert image and shard.read(image) == b"first"
        given_up = [(member.name, member.reason) for member in shard.index.bad_members]
    assert given_up == [("k.jpg", "duplicate key"), ("k.png", "duplicate key")]


def cut(tmp_path: Path, num_bytes: int) -> Path:
    whole = write_tar(tmp_path / "whole.tar", [("a.jpg", b"A" * 700), ("b.jpg", b"B" * 700)])
    path = tmp_path / "cut.tar"
    path.write_bytes(whole.read_bytes()[:num_bytes])
    return path


# A member is a header of 512 bytes and its content, filled up to a multiple of 512.
@pytest.mark.parametrize(
    ("num_bytes", "keys", "num_cut_off"),
    [
        (512 + 300, ["a"], 1),  # inside the content of a
        (512 + 700, ["a"], 0),  # just behind it
        (1536, ["a"], 0),  # between two members
        (1536 + 100, ["a"], 0),  # inside the header of b
        (2048 + 10, ["a", "b"], 1),  # inside the content of b
        (3072, ["a", "b"], 0),  # only the zeros at the end are missing
    ],
)
def test_a_tar_that_is_cut_off(
    tmp_path: Path, num_bytes: int, keys: list[str], num_cut_off: int
) -> None:
    index = index_shard(cut(tmp_path, num_bytes))
    assert [item.key for item in index.samples] == keys
    assert sum(item.image_failure is not None for item in index.samples) == num_cut_off
    assert len(index.bad_members) == num_cut_off
    assert index.damage is not None


def test_a_broken_header_in_the_middle(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("a.jpg", b"A" * 700), ("b.jpg", b"B"), ("c.jpg", b"C")])
    content = bytearray(path.read_bytes())
    content[1536:2048] = b"?" * 512
    path.write_bytes(content)
    index = index_shard(path)
    assert [item.key for item in index.samples] == ["a"]
    assert index.damage == "unreadable header at byte 1536"
    assert index.num_lost_bytes == len(content) - 1536


def test_data_behind_the_end_is_damage(tmp_path: Path) -> None:
    """Two tars written one behind the other, and a file whose second half never arrived."""
    first = write_tar(tmp_path / "a.tar", [("a.jpg", b"A" * 700)]).read_bytes()
    second = write_tar(tmp_path / "b.tar", [("b.jpg", b"B")]).read_bytes()
    path = tmp_path / "c.tar"
    path.write_bytes(first + second)
    index = index_shard(path)
    assert [item.key for item in index.samples] == ["a"]
    assert index.damage == "more data behind the end of the archive at byte 1536"
    path.write_bytes(first + bytes(2 * MAX_PADDING))
    assert str(index_shard(path).damage).startswith("nothing but zeros from byte 1536")
    path.write_bytes(first + bytes(MAX_PADDING // 2))
    assert index_shard(path).damage is None


@pytest.mark.parametrize("size", [-512, -100])
def test_a_negative_size_ends_the_tar(tmp_path: Path, size: int) -> None:
    path = write_tar(tmp_path / "a.tar", [("a.jpg", b"A"), ("b.jpg", b"")])
    content = bytearray(path.read_bytes())
    # In base 256, as GNU tar writes what eight digits cannot hold; then the header's checksum.
    content[1024 + 124 : 1024 + 136] = (256**12 + size).to_bytes(12, "big")
    content[1024 + 148 : 1024 + 156] = b" " * 8
    checksum = sum(content[1024:1536])
    content[1024 + 148 : 1024 + 156] = b"%06o\0 " % checksum
    path.write_bytes(content)
    index = index_shard(path)
    assert [item.key for item in index.samples] == ["a"]
    assert index.damage == f"cannot be read as a tar after byte 1024: a member of {size} bytes"


def test_members_that_are_passed_over_are_counted(tmp_path: Path) -> None:
    names = ("k.jpg", "k.masks.png", "k.cls", "a.0.5.jpg", "b.0.6.jpg", ".hidden.jpg", "bare")
    index = index_shard(write_tar(tmp_path / "a.tar", [(name, b"x") for name in names]))
    assert [item.key for item in index.samples] == ["k"]
    assert index.ignored == {"*.png": 1, "cls": 1, "*.jpg": 3, "": 1}


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100])
def test_a_file_that_is_no_tar(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    index = index_shard(path)
    assert index.samples == [] and index.damage is not None


def test_an_empty_but_whole_tar_is_not_damaged(tmp_path: Path) -> None:
    index = index_shard(write_tar(tmp_path / "a.tar", []))
    assert index.samples == [] and index.damage is None


def test_links_are_given_up(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("k.jpg")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info, io.BytesIO())
    index = index_shard(path)
    (only,) = index.samples
    assert only.image is None and only.image_failure == "not-a-file: the image is a symbolic link"
    assert index.bad_members[0].reason == "not a regular file but a symbolic link"


def test_texts_that_are_not_utf8_or_not_json(tmp_path: Path) -> None:
    members = sample("good", 0)
    members += [("bad.txt", "caf\xe9".encode("latin-1")), ("bad.json", b'{"a": "\xff"}')]
    members += [("worse.txt", b"x"), ("worse.json", b"{"), ("list.txt", b"x"), ("list.json", b"[]")]
    with open_shard(write_tar(tmp_path / "a.tar", members)) as shard:
        texts = {item.key: shard.read_texts(item) for item in shard.index.samples}
    assert texts["good"].problems == []
    assert texts["bad"].alt_text == "caf�"
    assert texts["bad"].metadata == {"a": "�"}
    assert texts["bad"].problems == ["text-not-utf8", "json-not-utf8"]
    assert texts["worse"].problems == texts["list"].problems == ["json-malformed"]


def test_a_text_without_end_is_cut_and_told(tmp_path: Path) -> None:
    text = "x" + "\u00e9" * MAX_TEXT_BYTES  # cut in the middle of a character
    path = write_tar(tmp_path / "a.tar", [("a.txt", text.encode())])
    with open_shard(path) as shard:
        texts = shard.read_texts(shard.index.samples[0])
    assert texts.problems == ["text-cut"]
    assert texts.alt_text == text[: MAX_TEXT_BYTES // 2]


def test_a_file_name_that_is_not_utf8_becomes_a_storable_key(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, errors="surrogateescape") as tar:
        info = tarfile.TarInfo(b"caf\xe9.jpg".decode("utf-8", "surrogateescape"))
        tar.addfile(info, io.BytesIO())
        tar.addfile(tarfile.TarInfo(b"caf\xe8.jpg".decode("utf-8", "surrogateescape")))
    first, second = index_shard(path).samples
    assert (first.key, second.key) == (r"caf\xe9", r"caf\xe8")
    assert first.image is not None and second.image is not None


def test_find_shards(tmp_path: Path) -> None:
    for name in ("x/b.tar", "x/a.tar", "y/a.tar"):
        write_tar(tmp_path / name, [])
    assert [path.name for path in find_shards(str(tmp_path / "x"))] == ["a.tar", "b.tar"]
    assert find_shards(f"{tmp_path}/x/a.tar") == find_shards(f"{tmp_path}/x/a*.tar")
    bracketed = write_tar(tmp_path / "x[1].tar", [])
    assert find_shards(str(bracketed)) == [bracketed]
    (tmp_path / "folder.tar").mkdir()
    assert find_shards(f"{tmp_path}/*.tar") == [bracketed]
    with pytest.raises(UserError, match="same name"):
        find_shards(f"{tmp_path}/*/*.tar")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no \*.tar in the folder"):
        find_shards(str(tmp_path / "empty"))
    with pytest.raises(UserError, match="no such folder"):
        find_shards(str(tmp_path / "absent"))
