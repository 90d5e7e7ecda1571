"""Failed rows are asked again: of people's captions these are pictures that were too large."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from recaption.common.config import load_config
from recaption.config import RetryConfig
from recaption.engine import CaptionAnswer
from recaption.engine.existing import ExistingEngine
from recaption.runner import RunSummary, retry
from recaption.table import read_rows, read_stats, table_path
from recaption.verify import VerifyConfig, verify
from tests.recaption.shard_files import Members, copy_run, sample, write_tar
from tests.recaption.test_runner import caption

GOOD = ExistingEngine.answer


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of four keys: `a` is fit, `b` rejected, `c` and `d` have failed."""
    folder = tmp_path_factory.mktemp("made")
    for number in range(3):
        members: Members = [*sample("a", 0), *sample("b", 1, ["Hm"]), *sample("c", 2)]
        write_tar(folder / f"in/s{number}.tar", [*members, *sample("d", 3)])

    async def fail(self: ExistingEngine, request: Any) -> CaptionAnswer:
        if request.key in "cd":
            code = {"c": "engine-died", "d": "no-answer"}[request.key]
            return CaptionAnswer(failure=f"{code}: it was a bad day")
        return await GOOD(self, request)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ExistingEngine, "answer", fail)
        assert caption(folder / "in", folder / "out").status["failed"] == 6
    return folder


@pytest.fixture
def tables(made: Path, tmp_path: Path) -> Path:
    return copy_run(made, tmp_path)


def arguments(tables: Path) -> list[str]:
    return ["engine.name=existing", f"input={tables.parent}/in", f"output={tables}"]


def ask_again(tables: Path, *more: str) -> RunSummary:
    return retry(load_config(RetryConfig, [*arguments(tables), *more]))


def statuses(tables: Path, shard: str) -> dict[str, str]:
    return {row.key: row.status for row in read_rows(tables, shard)}


def assert_sound(tables: Path) -> None:
    found = verify(VerifyConfig(str(tables), hashes=True, num_processes=1))
    assert found.num_problems == 0, str(found)


def test_only_failed_rows_are_asked_again(tables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [asdict(row) for row in read_rows(tables, "s0")]
    asked = []

    async def answer(self: ExistingEngine, request: Any) -> CaptionAnswer:
        asked.append(request.key)
        return await GOOD(self, request)

    monkeypatch.setattr(ExistingEngine, "answer", answer)
    summary = ask_again(tables, "reasons=[engine-died]")
    assert asked == ["c", "c", "c"] and summary.num_processed == 3
    assert statuses(tables, "s0") == {"a": "ok", "b": "rejected", "c": "ok", "d": "failed"}
    after = [asdict(row) for row in read_rows(tables, "s0")]
    assert [after[place] for place in (0, 1, 3)] == [before[place] for place in (0, 1, 3)]
    stats = read_stats(tables, "s0")
    assert stats is not None and stats.num_retries == 1
    assert stats.status == {"ok": 2, "rejected": 1, "failed": 1}

    assert ask_again(tables).status == {"ok": 9, "rejected": 3}
    stats = read_stats(tables, "s0")
    assert stats is not None and stats.num_retries == 2
    written = table_path(tables, "s0").stat().st_mtime_ns
    assert ask_again(tables).num_processed == 0
    assert table_path(tables, "s0").stat().st_mtime_ns == written
    assert_sound(tables)


def test_reasons_of_rejected_rows_ask_nothing(tables: Path) -> None:
    content = table_path(tables, "s0").read_bytes()
    assert ask_again(tables, "reasons=[too-short]").num_processed == 0
    stats = read_stats(tables, "s0")
    assert table_path(tables, "s0").read_bytes() == content
    assert stats is not None and stats.num_retries == 0
    assert_sound(tables)


def test_several_workers_retry_each_shard_once(tables: Path) -> None:
    command = [sys.executable, "-m", "recaption", "retry", *arguments(tables), "--json"]
    settings = ["claims.heartbeat=0.2", "claims.stale_after=60"]
    workers = [
        subprocess.Popen([*command, *settings], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    figures = [json.loads(worker.communicate()[0].splitlines()[-1]) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    assert sum(one["num_processed"] for one in figures) == 6
    for number in range(3):
        stats = read_stats(tables, f"s{number}")
        assert stats is not None and stats.num_retries == 1
    assert_sound(tables)


def assert_session_ends(session: int) -> None:
    """What the killed worker had started does not outlive it, even if it had just begun."""
    end = time.monotonic() + 30
    while living := list(processes_of(session)):
        assert time.monotonic() < end, living
        time.sleep(0.05)


def processes_of(session: int) -> Iterator[int]:
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                yield int(folder.name)


KILL_AT = """
import os, signal, sys
from pathlib import Path
from recaption import table
from recaption.__main__ import main
replace, moment = Path.replace, sys.argv[1]
def kill_at(self, target):
    if moment == "before the table" and target.name == "s0.parquet":
        os.kill(os.getpid(), signal.SIGKILL)
    if moment == "before the marker" and target.name == "s0.stats.json":
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)
if moment == "while it writes":
    table.sync = lambda path: os.kill(os.getpid(), signal.SIGKILL)
Path.replace = kill_at
if __name__ == "__main__":
    main(sys.argv[2:])
"""


@pytest.mark.parametrize("moment", ["while it writes", "before the table", "before the marker"])
def test_a_kill_costs_no_row(tables: Path, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old = table_path(tables, "s0").read_bytes()
    before = read_stats(tables, "s0")
    script = tables.parent / "kill.py"
    script.write_text(KILL_AT)
    command = [sys.executable, str(script), moment, "retry", *arguments(tables)]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    worker = subprocess.Popen(command, env=environment, start_new_session=True)
    assert worker.wait() == -9
    assert_session_ends(worker.pid)
    if moment == "while it writes":
        assert table_path(tables, "s0").read_bytes() == old and read_stats(tables, "s0") == before

    async def refuse(self: ExistingEngine, request: Any) -> CaptionAnswer:
        assert request.key in "cd", "a row that was there is asked again"
        return await GOOD(self, request)

    monkeypatch.setattr(ExistingEngine, "answer", refuse)
    caption(tables.parent / "in", tables)  # finishes what is not
    ask_again(tables)
    stats = read_stats(tables, "s0")
    assert stats is not None and stats.num_retries == 1
    assert stats.status == {"ok": 3, "rejected": 1}
    assert before is not None and stats.notes == before.notes
    assert_sound(tables)
