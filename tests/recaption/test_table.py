from dataclasses import replace
from pathlib import Path

import pytest

from recaption.common.config import UserError
from recaption.engine import CaptionOrigin
from recaption.table import (
    SCHEMA,
    CaptionRow,
    ShardStats,
    SourceFile,
    is_finished,
    read_stats,
    read_table,
    stats_path,
    table_path,
    write_table,
)

ORIGIN = CaptionOrigin("long", "tiny", "abc", "123")
FILTERS = {"min_words": 3}
ROWS = [
    CaptionRow(
        "a", "00", "long", "ok", None, "A dog. A cat.", None, ["A dog.", "A cat."], 7, "stop"
    ),
    CaptionRow("b", None, "long", "failed", "no-image: in tar"),
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "s.tar"
    path.write_bytes(b"content")
    return path


def write(source: Path, rows: list[CaptionRow] = ROWS) -> None:
    write_table(source.parent, rows, ShardStats("s", SourceFile.of(source), [ORIGIN], FILTERS))


def test_round_trip(source: Path) -> None:
    write(source)
    table = read_table(source.parent, "s")
    assert table.schema.equals(SCHEMA)
    first, second = table.to_pylist()
    assert first == {
        "key": "a",
        "sha256": "00",
        "shard": "s",
        "prompt_id": "long",
        "model": "tiny",
        "model_revision": "abc",
        "sampling_hash": "123",
        "caption": "A dog. A cat.",
        "raw_caption": None,
        "sentences": ["A dog.", "A cat."],
        "num_tokens": 7,
        "finish_reason": "stop",
        "status": "ok",
        "reason": None,
    }
    assert second["caption"] is None and second["sentences"] == []
    stats = read_stats(source.parent, "s")
    assert stats is not None and stats.origins == [ORIGIN]
    assert stats.table_bytes == table_path(source.parent, "s").stat().st_size


def test_a_failed_write_leaves_nothing(source: Path) -> None:
    bad = CaptionRow("a", "00", "long", "ok", num_tokens="many")  # type: ignore[arg-type]
    with pytest.raises(Exception, match="many"):
        write(source, [bad])
    assert list(source.parent.iterdir()) == [source]
    assert not is_finished(source.parent, source, [ORIGIN], FILTERS)


def test_the_statistics_are_the_commit_marker(source: Path) -> None:
    assert not is_finished(source.parent, source, [ORIGIN], FILTERS)
    write(source)
    assert is_finished(source.parent, source, [ORIGIN], FILTERS)
    stats_path(source.parent, "s").unlink()
    assert not is_finished(source.parent, source, [ORIGIN], FILTERS)
    with pytest.raises(UserError, match="not finished"):
        read_table(source.parent, "s")


def test_a_table_made_otherwise_is_not_taken_for_this_one(source: Path) -> None:
    write(source)
    with pytest.raises(UserError, match="another model and sampling_hash: use another output"):
        other = replace(ORIGIN, model="large", sampling_hash="456")
        is_finished(source.parent, source, [other], FILTERS)
    with pytest.raises(UserError, match="another min_words"):
        is_finished(source.parent, source, [ORIGIN], {"min_words": 5})


def test_a_source_is_told_by_content_where_its_time_differs(source: Path) -> None:
    write(source)
    source.write_bytes(b"content")
    assert is_finished(source.parent, source, [ORIGIN], FILTERS)
    source.write_bytes(b"CONTENT")
    with pytest.raises(UserError, match="has changed since"):
        is_finished(source.parent, source, [ORIGIN], FILTERS)


def test_a_damaged_table_or_marker_is_an_error(source: Path) -> None:
    write(source)
    path = table_path(source.parent, "s")
    whole = path.read_bytes()
    for damaged in (whole[:-10], whole[:50] + bytes([whole[50] ^ 1]) + whole[51:]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="is damaged"):
            read_table(source.parent, "s")
    stats_path(source.parent, "s").write_text("{}")
    with pytest.raises(UserError, match="cannot be read"):
        is_finished(source.parent, source, [ORIGIN], FILTERS)


def test_leftovers_of_a_killed_run_are_removed(source: Path) -> None:
    folder = source.parent
    (folder / ".s.parquet.1234.tmp").write_bytes(b"half")
    (folder / ".s-2.parquet.1234.tmp").write_bytes(b"of another shard")
    write(source)
    assert sorted(path.name for path in folder.glob(".*")) == [".s-2.parquet.1234.tmp"]
