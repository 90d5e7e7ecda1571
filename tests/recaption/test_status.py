import json
import os
from pathlib import Path

import pytest

from recaption.__main__ import main
from recaption.common.config import UserError
from recaption.engine import CaptionOrigin
from recaption.status import Status, StatusConfig, status
from recaption.table import CaptionRow, read_stats
from recaption.work.claims import ClaimConfig, Claims, all_claims
from recaption.work.journal import Journal, JournalEntry
from tests.recaption.shard_files import copy_run, sample, write_tar
from tests.recaption.test_runner import caption


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of four shards of ten images two are done; one of these has a failed and a rejected row."""
    folder = tmp_path_factory.mktemp("made")
    for number in range(2):
        members = [part for index in range(10) for part in sample(f"k{index}", index)]
        if number == 0:
            members = [*members[:24], *sample("hm", 9, ["Hm"]), ("none.txt", b"no image")]
        write_tar(folder / f"in/s{number}.tar", members)
    caption(folder / "in", folder / "out")
    for number in (2, 3):
        members = [part for index in range(10) for part in sample(f"k{index}", index)]
        write_tar(folder / f"in/s{number}.tar", members)
    return folder


@pytest.fixture
def tables(made: Path, tmp_path: Path) -> Path:
    return copy_run(made, tmp_path)


def look(tables: Path) -> Status:
    return status(StatusConfig(str(tables)))


def test_what_is_done_and_what_is_not(tables: Path) -> None:
    found = look(tables)
    assert (found.num_shards, found.num_done, found.num_not_begun) == (4, 2, 2)
    assert found.num_images_done == 20 and found.num_images == pytest.approx(40, abs=3)
    assert found.status == {"ok": 18, "rejected": 1, "failed": 1}
    assert found.reasons == {"no-image": 1, "too-short": 1}
    assert found.with_failed_rows == {"s0": 1}
    assert found.in_hand == [] and found.seconds_left is None
    assert "2 of 4 done" in str(found) and "failed rows in 1 shards" in str(found)


def test_shards_in_hand_of_the_living_and_the_dead(tables: Path) -> None:
    settings = {"origins": [], "filters": {}}
    rows = [CaptionRow(f"k{n}", "00", "existing", "ok", None, "A dog.") for n in range(4)]
    with Claims(tables / "work", ClaimConfig()) as claims:
        for shard in ("s2", "s3"):
            assert claims.take(shard) is not None
            journal = Journal(tables / "work", shard, claims.worker, settings)
            journal.add([JournalEntry(row) for row in rows])
            journal.close()
        (two, three) = [path for _, _, path in sorted(all_claims(tables / "work"))]
        now = three.stat().st_mtime
        os.utime(three, (now, now - 1000))
        two.write_text(json.dumps({**json.loads(two.read_text()), "taken": now - 100}))

        found = look(tables)
        alive, stale = found.in_hand
        assert (alive.shard, alive.is_alive, alive.num_rows) == ("s2", True, 4)
        assert alive.seconds == pytest.approx(100, abs=20) and alive.quiet_seconds < 20
        assert (stale.shard, stale.is_alive) == ("s3", False)
        assert stale.quiet_seconds == pytest.approx(1000, abs=20)
        assert found.num_workers == 1 and found.num_images_done == 28
        # 20 images of the finished shards and 4 in hand, in the 100 s since that was taken
        assert found.images_per_second == pytest.approx(0.24, rel=0.2)
        left = found.num_images - found.num_images_done
        assert found.seconds_left == pytest.approx(left / found.images_per_second, rel=0.1)
        assert "alive" in str(found) and "stale" in str(found)
    found = look(tables)
    assert found.in_hand == [] and found.waiting == ["s2", "s3"]


def test_long_journals_are_weighed(tables: Path) -> None:
    settings = {"origins": [CaptionOrigin("existing", "", "", "").__dict__]}
    journal = Journal(tables / "work", "s2", "w", settings)
    for number in range(3000):
        text = "word " * (20 + number % 7)
        row = CaptionRow(f"k{number}", "00", "existing", "ok", None, text, None, [text])
        journal.add([JournalEntry(row)])
    journal.close()
    assert look(tables).num_images_done == pytest.approx(3020, rel=0.02)


def test_json_and_mistakes(tables: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", f"output={tables}", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["num_done"] == 2 and figures["in_hand"] == []
    with pytest.raises(UserError, match="no such folder"):
        status(StatusConfig(str(tables / "nowhere")))
    (tables / "config.yaml").unlink()
    with pytest.raises(UserError, match="give input=FOLDER"):
        look(tables)
    stats = read_stats(tables, "s1")
    assert stats is not None
    assert status(StatusConfig(str(tables), f"{tables.parent}/in")).num_done == 2
