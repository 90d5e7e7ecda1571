"""Readers of official layouts: what they take, and what they say of a copy that is not whole."""

import codecs
import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pretrain.evaluate.benchmarks.base import LayoutError, RetrievalSet
from pretrain.evaluate.benchmarks.described import describe
from pretrain.evaluate.benchmarks.registry import BENCHMARKS
from pretrain.evaluate.benchmarks.rows import retrieval_set
from pretrain.evaluate.benchmarks.table import is_whole
from recaption.common.files import sha256_file
from tests.pretrain.evaluate.benchmarks.layouts import (
    TEXTS,
    WRITERS,
    names,
    read,
    write_dci,
    write_docci,
    write_flickr30k,
    write_iiw,
    write_picture,
    write_urban1k,
)


@pytest.mark.parametrize("name", WRITERS)
def test_every_picture_of_a_set_opens_and_has_its_own_text(name: str, tmp_path: Path) -> None:
    data = read(name, WRITERS[name](tmp_path))
    assert len(data.images) == len(set(names(data))) > 1
    assert all(picture.open().size == (36, 24) for picture in data.images)
    assert sorted(set(data.image_of_text)) == list(range(len(data.images)))
    assert not data.coverage.missing
    assert data.coverage.num_expected > len(data.images)
    assert all(path.is_file() for path in data.coverage.inputs)


@pytest.mark.parametrize("name", WRITERS)
def test_a_part_of_a_set_needs_leave(name: str, tmp_path: Path) -> None:
    root = WRITERS[name](tmp_path)
    with pytest.raises(LayoutError, match=r"images, the protocol [\d,]+; allow_missing=true"):
        read(name, root, allow_missing=False)


@pytest.mark.parametrize("name", WRITERS)
def test_a_missing_picture_is_named_or_counted(name: str, tmp_path: Path) -> None:
    root = WRITERS[name](tmp_path)
    whole = read(name, root)
    gone = whole.images[1]
    gone.path.unlink()
    with pytest.raises(LayoutError, match=f"1 missing in .*{gone.path.name}; allow_missing"):
        read(name, root, allow_missing=False)
    rest = read(name, root)
    assert [Path(entry).name for entry in rest.coverage.missing] == [gone.path.name]
    assert names(rest) == [name for name in names(whole) if name != gone.path.name]
    assert gone.path.name not in names(rest)
    left = [t for t, i in zip(whole.texts, whole.image_of_text, strict=True) if i != 1]
    assert list(rest.texts) == left


@pytest.mark.parametrize("name", WRITERS)
def test_a_wrong_root_is_told_with_what_it_holds(name: str, tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    with pytest.raises(LayoutError, match=r"holds no .*; it holds cats/"):
        read(name, tmp_path)


@pytest.mark.parametrize("name", ["dci", "sharegpt4v", "coco", "docci", "iiw"])
def test_a_file_that_was_cut_off_is_named(name: str, tmp_path: Path) -> None:
    root = WRITERS[name](tmp_path)
    path = read(name, root).coverage.inputs[-1]
    path.write_text(path.read_text()[:-20])
    with pytest.raises(LayoutError, match=f"{path.name}.* is damaged") as caught:
        read(name, root, allow_missing=name != "dci")  # which has a file for each sample
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["dci", "urban1k"])
def test_one_damaged_file_of_many_is_named_or_counted(name: str, tmp_path: Path) -> None:
    root = WRITERS[name](tmp_path)
    path = read(name, root).coverage.inputs[2]
    path.write_bytes(path.read_bytes().replace(b"This is", "It\u2019s".encode("cp1252")))
    told = f"{path.relative_to(root)} is damaged: it is not UTF-8"
    with pytest.raises(LayoutError, match=f"{told}.*; copy it again, or save it as UTF-8"):
        read(name, root, allow_missing=False)
    coverage = read(name, root).coverage
    assert (coverage.num_found, len(coverage.missing)) == (5, 1)
    assert coverage.missing[0].startswith(told)
    assert path not in coverage.inputs


@pytest.mark.parametrize("name", WRITERS)
def test_a_byte_order_mark_is_no_part_of_a_text(name: str, tmp_path: Path) -> None:
    root = WRITERS[name](tmp_path)
    before = read(name, root)
    for path in before.coverage.inputs:
        path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    after = read(name, root)
    assert (after.texts, after.coverage) == (before.texts, before.coverage)


def test_hidden_files_are_no_samples(tmp_path: Path) -> None:
    """What a Mac leaves beside the files in an archive, or on a disk of another system."""
    root = write_urban1k(tmp_path)
    before = read("urban1k", root)
    for path in ("image/._1.jpg", "image/._20.jpg", "caption/._1.txt"):
        (root / path).write_bytes(b"\x00\x05\x16\x07 Mac OS X \xb0")
    assert read("urban1k", root) == before


@pytest.mark.parametrize(
    ("name", "inside"), [("docci", "images"), ("urban1k", "image"), ("urban1k", "caption")]
)
def test_the_root_is_looked_for_nearby(
    name: str, inside: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = WRITERS[name](tmp_path / "some" / "where")
    for given in (root.parent, root / inside):
        with pytest.raises(LayoutError, match=f"give root={root}$"):
            read(name, given)
        monkeypatch.chdir(given)
        with pytest.raises(LayoutError, match=rf"^\. holds no .*root=({root}|where)$"):
            read(name, Path())


def test_what_may_not_be_looked_at_is_passed_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk's lost+found, as it is to others than root."""
    write_docci(tmp_path / "where")
    (tmp_path / "lost+found").mkdir()
    stat = Path.stat

    def refuse(path: Path, **options: Any) -> Any:
        if "lost+found" in path.parent.parts:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(LayoutError, match=f"give root={tmp_path / 'where'}$"):
        read("docci", tmp_path)


@pytest.mark.parametrize("name", WRITERS)
def test_every_annotation_file_has_a_checksum_of_its_own(name: str, tmp_path: Path) -> None:
    data = read(name, WRITERS[name](tmp_path))
    benchmark = BENCHMARKS[name]
    files = describe(benchmark, next(iter(benchmark.variants)), data)["inputs"]["files"]
    assert len(files) == len(data.coverage.inputs)
    for path in data.coverage.inputs:
        assert files[str(path.relative_to(tmp_path))] == sha256_file(path)


def test_of_many_annotation_files_one_checksum(tmp_path: Path) -> None:
    root = write_urban1k(tmp_path)
    for number in (20, 30, 40):
        write_picture(root / "image" / f"{number}.jpg", number)
        (root / "caption" / f"{number}.txt").write_text(f"Number {number}.")
    inputs = describe(BENCHMARKS["urban1k"], "", read("urban1k", root))["inputs"]
    assert list(inputs["files"]) == ["9 files, sha256 of their `sha256sum`"]


@pytest.mark.parametrize("mark", ["\u2028", "\x85", "\x0b", "\x0c"])
def test_only_a_newline_ends_a_line(mark: str, tmp_path: Path) -> None:
    text = f"A wall{mark}and a door."
    docci = write_docci(tmp_path / "docci") / "annotations" / "docci_descriptions.jsonlines"
    row = {"split": "test", "image_file": "test_00001.jpg", "description": text}
    # JSON has \x0b and \x0c escaped; the others may stand as they are.
    docci.write_text(json.dumps(row, ensure_ascii=False), encoding="utf-8")
    assert read("docci", tmp_path / "docci").texts == [text]
    urban1k = write_urban1k(tmp_path / "urban1k")
    (urban1k / "caption" / "1.txt").write_text(f"{text}\nMore.", encoding="utf-8")
    assert read("urban1k", urban1k).texts[0] == text
    flickr30k = write_flickr30k(tmp_path / "flickr30k")
    lines = f"1001.jpg#0\t{text}\n1003.jpg#0\tanother\n"
    (flickr30k / "results_20130124.token").write_text(lines, encoding="utf-8")
    assert read("flickr30k", flickr30k).texts == [text, "another"]


def test_a_set_of_iiw_may_be_missing(tmp_path: Path) -> None:
    root = write_iiw(tmp_path)
    (root / "DCI_Test" / "data.jsonl").unlink()
    with pytest.raises(LayoutError, match=r"1 missing in .*: DCI_Test/data\.jsonl; allow_missing"):
        read("iiw", root, allow_missing=False)
    data = read("iiw", root)
    assert data.texts == [*TEXTS[:2], *TEXTS[4:]]
    assert data.coverage.missing == ["DCI_Test/data.jsonl"]


def test_dci_joins_short_and_extra_caption(tmp_path: Path) -> None:
    data = read("dci", write_dci(tmp_path))
    assert data.texts[0] == "This is picture 0\nIt has a colour. Nothing else is there."
    assert names(data) == [f"sa_{number}.jpg" for number in range(6)]
    assert data.coverage.num_expected == 7805


def test_dci_by_the_list_that_others_use(tmp_path: Path) -> None:
    data = read("dci", write_dci(tmp_path), "1999")
    assert names(data) == ["sa_4.jpg", "sa_2.jpg"]
    assert list(data.texts) == [TEXTS[4], TEXTS[2]]
    assert data.coverage.num_expected == 1999


def test_dci_names_an_annotation_that_is_not_there(tmp_path: Path) -> None:
    root = write_dci(tmp_path)
    (root / "densely_captioned_images/annotations/3.json").unlink()
    with pytest.raises(LayoutError, match=r"1 missing in .*annotations/3\.json"):
        read("dci", root, allow_missing=False)
    assert len(read("dci", root).images) == 5


def test_docci_with_and_without_qual_test(tmp_path: Path) -> None:
    root = write_docci(tmp_path)
    assert read("docci", root).texts == TEXTS[1:4]
    more = read("docci", root, "test+qual_test")
    assert more.texts == [*TEXTS[1:4], TEXTS[5]]
    assert more.coverage.num_expected == 5100


def test_urban1k_takes_first_lines_in_the_order_of_numbers(tmp_path: Path) -> None:
    root = write_urban1k(tmp_path)
    data = read("urban1k", root)
    assert data.texts == TEXTS
    assert names(data)[-1] == "10.jpg"
    (root / "caption" / "2.txt").unlink()
    assert read("urban1k", root).coverage.missing == ["caption/2.txt"]


def edit_lines(path: Path, change: Callable[[list[dict]], list[dict]]) -> None:
    rows = change([json.loads(line) for line in path.read_text().splitlines()])
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_row_that_stands_there_twice_counts_once(tmp_path: Path) -> None:
    root = write_docci(tmp_path)
    path = root / "annotations" / "docci_descriptions.jsonlines"
    edit_lines(path, lambda rows: [*rows, rows[1]])
    data = read("docci", root)
    assert data.texts == TEXTS[1:4]
    assert data.coverage.notes == {"rows that were there before": 1}


def test_equal_texts_of_two_images_are_kept_and_told(tmp_path: Path) -> None:
    root = write_docci(tmp_path)
    path = root / "annotations" / "docci_descriptions.jsonlines"
    edit_lines(path, lambda rows: [{**row, "description": TEXTS[1]} for row in rows])
    data = read("docci", root)
    assert data.image_of_text == [0, 1, 2]
    assert data.coverage.notes == {"texts that another image has, too": 2}


def one_more(rows: list) -> list:
    """A second text of the first image."""
    name = next(n for n in ("description", "caption", "IIW") if n in rows[0])
    return [*rows, rows[0] | {name: "A text by somebody else."}]


@pytest.mark.parametrize(
    ("name", "variant", "file", "change"),
    [
        ("dci", "1999", "DCI_test.json", one_more),
        ("docci", "test", "annotations/docci_descriptions.jsonlines", lambda r: one_more(r[1:])),
        ("iiw", "", "IIW-400/data.jsonl", one_more),
    ],
)
def test_a_second_text_of_an_image_is_another_task(
    name: str,
    variant: str,
    file: str,
    change: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Long retrieval has one text an image; the figures of others are of that."""
    root = WRITERS[name](tmp_path)
    number = len(read(name, root, variant).images)
    layout = sys.modules[f"pretrain.evaluate.benchmarks.{name}"]

    def as_small(*args: Any, **kwargs: Any) -> RetrievalSet:
        """As if the protocol had so many images."""
        protocol, texts = args[3], kwargs["num_texts"]
        assert texts == protocol
        return retrieval_set(*args[:3], number, *args[4:], **kwargs | {"num_texts": number})

    monkeypatch.setattr(layout, "retrieval_set", as_small)
    benchmark = BENCHMARKS[name]
    assert is_whole(describe(benchmark, variant, read(name, root, variant, False))["coverage"])
    path = root / file
    if path.suffix == ".json":
        path.write_text(json.dumps(change(json.loads(path.read_text()))))
    else:
        edit_lines(path, change)
    with pytest.raises(LayoutError, match=f"has {number + 1} texts of {number} images"):
        read(name, root, variant, allow_missing=False)
    assert not is_whole(describe(benchmark, variant, read(name, root, variant))["coverage"])


@pytest.mark.parametrize("name", ["dci", "docci", "sharegpt4v", "urban1k", "iiw"])
def test_long_retrieval_has_as_many_texts_as_images(name: str, tmp_path: Path) -> None:
    root = WRITERS[name](tmp_path)
    for variant in BENCHMARKS[name].variants:
        if variant != "joint":  # whose parts have each a text of their own, as many as there are
            coverage = read(name, root, variant).coverage
            assert coverage.num_texts_expected == coverage.num_expected


def test_an_empty_caption_is_named_or_counted(tmp_path: Path) -> None:
    root = write_urban1k(tmp_path)
    path = root / "caption" / "3.txt"
    path.write_text("\n")
    with pytest.raises(LayoutError, match=r"1 missing in .*the text of caption/3\.txt"):
        read("urban1k", root, allow_missing=False)
    data = read("urban1k", root)
    assert "3.jpg" not in names(data)
    assert data.coverage.missing == ["the text of caption/3.txt"]


def test_a_record_without_its_field_is_named(tmp_path: Path) -> None:
    root = write_docci(tmp_path)
    path = root / "annotations" / "docci_descriptions.jsonlines"
    edit_lines(path, lambda rows: [{"split": "test", "image_file": "a.jpg"}, *rows])
    with pytest.raises(LayoutError, match="line 1 has no field 'description'"):
        read("docci", root)


def test_nothing_at_all_is_an_error_even_with_leave(tmp_path: Path) -> None:
    root = write_docci(tmp_path)
    for path in (root / "images").iterdir():
        path.unlink()
    with pytest.raises(LayoutError, match="nothing of it is in"):
        read("docci", root)


def test_a_picture_that_is_none_is_named(tmp_path: Path) -> None:
    root = write_docci(tmp_path)
    picture = read("docci", root).images[0]
    picture.path.write_bytes(b"no picture")
    with pytest.raises(Exception, match=f"{picture.path.name} cannot be opened"):
        picture.open()
    write_picture(picture.path, 1)
    assert picture.open().size == (36, 24)
