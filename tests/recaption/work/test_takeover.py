"""A worker that is suspended with a shard in hand, as a paused container or a hung node is."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from recaption.table import read_stats
from recaption.verify import VerifyConfig, verify
from recaption.work.claims import read_holders
from tests.recaption.shard_files import picture, to_bytes, write_tar

CLAIMS = ["claims.heartbeat=0.3", "claims.stale_after=1"]


def start(shards: Path, tables: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "recaption", "run", "engine.name=existing", *CLAIMS]
    return subprocess.Popen(
        [*command, f"input={shards}", f"output={tables}", "num_decode_processes=1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_who_was_asleep_writes_nothing_and_goes_on_with_others(tmp_path: Path) -> None:
    data = to_bytes(picture(0, (2000, 2000)), quality=30)
    text = json.dumps({"sentences": ["A picture of blocks"]}).encode()
    for number in range(2):
        names = [f"{number}-{index}" for index in range(60)]
        members = [part for n in names for part in ((f"{n}.jpg", data), (f"{n}.json", text))]
        write_tar(tmp_path / f"in/s{number}.tar", members)
    tables = tmp_path / "out"
    asleep = start(tmp_path / "in", tables)
    while not any(
        path.read_text().count("\n") > 5 for path in tables.glob("work/s0.journal.*.jsonl")
    ):
        assert asleep.poll() is None, asleep.communicate()
        time.sleep(0.01)
    asleep.send_signal(signal.SIGSTOP)
    try:
        assert read_stats(tables, "s0") is None
        assert "s0" in {one.shard for one in read_holders(tables / "work", 60)}
        other = start(tmp_path / "in/s0.tar", tables)
        _, errors = other.communicate(timeout=100)
        assert other.returncode == 0, errors
        marker = read_stats(tables, "s0")
        assert marker is not None and marker.num_attempts == 2
    finally:
        asleep.send_signal(signal.SIGCONT)
    _, errors = asleep.communicate(timeout=100)
    assert asleep.returncode == 0, errors
    assert "another worker took this shard over" in errors
    assert read_stats(tables, "s0") == marker, "written by the other one, and left alone"
    assert read_stats(tables, "s1") is not None
    found = verify(VerifyConfig(str(tables), str(tmp_path / "in"), num_processes=1))
    assert found.num_problems == 0, str(found)
