import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recaption.__main__ import main
from recaption.common.files import sha256_file
from recaption.table import read_rows, read_stats, stats_path, table_path, write_table
from recaption.verify import Verification, VerifyConfig, verify
from recaption.work.claims import ClaimConfig, Claims
from recaption.work.journal import Journal
from tests.recaption.shard_files import copy_run, sample, write_tar
from tests.recaption.test_runner import caption


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    for number in range(2):
        members = [part for index in range(4) for part in sample(f"k{index}", index)]
        members += [("none.txt", b"no image"), ("huge.png", b"no png")]
        write_tar(folder / f"in/s{number}.tar", members)
    caption(folder / "in", folder / "out")
    return folder


@pytest.fixture
def tables(made: Path, tmp_path: Path) -> Path:
    return copy_run(made, tmp_path)


def look(tables: Path, hashes: bool = False) -> Verification:
    return verify(VerifyConfig(str(tables), hashes=hashes, num_processes=1))


def problems(tables: Path, hashes: bool = False) -> set[tuple[str, str, str | None]]:
    look(tables, hashes)
    found = json.loads((tables / "verify.json").read_text())["problems"]
    return {(problem["code"], problem["shard"], problem["key"]) for problem in found}


def test_a_sound_folder(tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", f"output={tables}", "hashes=true", "--json"]) == 0
    output = capsys.readouterr().out.splitlines()
    assert "2 shards, 12 images, 12 rows, 10 images hashed: every key exactly once" in output[0]
    assert json.loads(output[-1])["num_problems"] == 0


def change_rows(tables: Path, change: Callable[[list[dict[str, object]]], object]) -> None:
    """A table with other rows, and a marker that stands by it."""
    path = table_path(tables, "s0")
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    tree = json.loads(stats_path(tables, "s0").read_text())
    tree |= {"table_bytes": path.stat().st_size, "table_sha256": sha256_file(path)}
    stats_path(tables, "s0").write_text(json.dumps(tree))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda rows: rows.pop(2), {("missing-row", "k2")}),
        (lambda rows: rows.append(rows[1]), {("double-row", "k1")}),
        (
            lambda rows: rows[0].update(key="k9"),
            {("missing-row", "k0"), ("unknown-row", "k9"), ("wrong-hash", "k9")},
        ),
        (lambda rows: rows.reverse(), {("wrong-order", "huge")}),
        (lambda rows: rows[3].update(shard="s1"), {("bad-row", "k3")}),
        (lambda rows: rows[3].update(model="other"), {("bad-row", "k3")}),
        (lambda rows: rows[3].update(caption=None), {("bad-row", "k3")}),
        (lambda rows: rows[0].update(sha256="00"), {("wrong-hash", "k0")}),
        (lambda rows: rows[0].update(sha256=None), {("no-hash", "k0")}),
    ],
)
def test_rows_that_are_not_those_of_the_tar(
    tables: Path,
    change: Callable[[list[dict[str, object]]], object],
    expected: set[tuple[str, str]],
) -> None:
    change_rows(tables, change)
    found = {(code, key) for code, shard, key in problems(tables, hashes=True) if shard == "s0"}
    assert found - {("wrong-count", None)} == expected


def test_markers_and_tables_that_do_not_fit(tables: Path) -> None:
    tree = json.loads(stats_path(tables, "s0").read_text())
    stats_path(tables, "s0").write_text(json.dumps({**tree, "status": {"ok": 6}}))
    with table_path(tables, "s1").open("ab") as file:
        file.write(b"x")
    assert problems(tables) == {
        ("wrong-count", "s0", None),
        ("damaged-table", "s1", None),
        ("unreadable-table", "s1", None),
    }
    table_path(tables, "s1").unlink()
    stats_path(tables, "s0").write_text("{")
    assert problems(tables) == {("bad-marker", "s0", None), ("not-finished", "s1", None)}


def test_another_schema_and_another_tar(tables: Path) -> None:
    table = pq.read_table(table_path(tables, "s0"))
    pq.write_table(table.drop_columns(["raw_caption"]), table_path(tables, "s0"))
    write_tar(tables.parent / "in/s1.tar", sample("new", 1))
    found = problems(tables)
    assert ("wrong-schema", "s0", None) in found
    assert {("changed-tar", "s1", None), ("missing-row", "s1", "new")} <= found


def test_tables_of_different_settings(tables: Path) -> None:
    stats = read_stats(tables, "s1")
    assert stats is not None
    rows = read_rows(tables, "s1")
    write_table(tables, rows, replace(stats, origins=[replace(stats.origins[0], model="other")]))
    assert problems(tables) == {("other-settings", "s1", None)}


def test_leftovers_are_listed_and_a_run_clears_them(
    tables: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    claims = Claims(tables / "work", ClaimConfig())
    claim = claims.take("s0")
    assert claim is not None
    Journal(tables / "work", "s0", claims.worker, {}).close()
    (tables / ".s1.parquet.123.tmp").touch()
    assert problems(tables) == {("leftover", "s1", None)}, "a living worker's are its own"
    dead = json.loads(claim.path.read_text()) | {"process_start": 1}
    claim.path.write_text(json.dumps(dead))
    found = look(tables)
    assert found.codes == {"leftover": 3}
    assert main(["verify", f"output={tables}"]) == 1
    assert "claim of" in capsys.readouterr().out
    (tables / ".s1.parquet.123.tmp").rename(tables / ".s0.parquet.123.tmp")
    caption(tables.parent / "in", tables)
    assert look(tables).num_problems == 0
