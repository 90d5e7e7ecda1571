from pathlib import Path

from recaption.table import CaptionRow
from recaption.work.journal import Journal, JournalEntry, journal_paths, read_journals

SETTINGS = {"origins": ["a"], "filters": {"min_words": 3}}


def row(key: str, caption: str = "A dog.") -> CaptionRow:
    return CaptionRow(key, "00", "long", "ok", None, caption, None, [caption], 3, "stop")


def write(folder: Path, worker: str, rows: list[CaptionRow], **options: object) -> Path:
    options = {"settings": SETTINGS, **options}
    journal = Journal(folder, "s", worker, **options)  # type: ignore[arg-type]
    journal.add([JournalEntry(one, ["animated"]) for one in rows])
    journal.close()
    return folder / f"s.journal.{worker}.jsonl"


def test_journals_of_two_workers_are_one_shard(tmp_path: Path) -> None:
    write(tmp_path, "w1", [row("a"), row("b")])
    write(tmp_path, "w2", [row("b", "A cat."), row("c")])
    (tmp_path / "s.1.journal.w1.jsonl").write_text("of another shard")
    entries = read_journals(tmp_path, "s", SETTINGS).entries
    assert {key: entry.row.caption for (key, _), entry in entries.items()} == {
        "a": "A dog.",
        "b": "A dog.",  # the first one's, whoever reads
        "c": "A dog.",
    }
    assert entries["a", "long"] == JournalEntry(row("a"), ["animated"])
    assert len(journal_paths(tmp_path, "s")) == 2


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, "w1", [row("a"), row("b", "Ein Hündchen.")])
    content = path.read_bytes()
    for length in range(len(content) - 2, content.index(b"\n"), -7):
        path.write_bytes(content[:length])
        entries = read_journals(tmp_path, "s", SETTINGS).entries
        assert ("b", "long") not in entries
        assert all(entry.row == row("a") for entry in entries.values())
    path.write_bytes(content[:20])  # in the settings
    assert read_journals(tmp_path, "s", SETTINGS).entries == {}


def test_other_settings_are_not_taken_over(tmp_path: Path) -> None:
    write(tmp_path, "w1", [row("a")], settings={**SETTINGS, "filters": {"min_words": 4}})
    write(tmp_path, "w2", [row("b")])
    assert [key for key, _ in read_journals(tmp_path, "s", SETTINGS).entries] == ["b"]


def test_of_retries_the_last_counts(tmp_path: Path) -> None:
    write(tmp_path, "w1", [row("a"), row("b")])
    write(tmp_path, "w2", [row("b", "A cat.")], num_retries=1, notes={"animated": 2})
    journaled = read_journals(tmp_path, "s", SETTINGS)
    assert [entry.row.caption for entry in journaled.entries.values()] == ["A cat."]
    assert journaled.num_retries == 1 and journaled.notes == {"animated": 2}
