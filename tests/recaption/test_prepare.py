"""Decoders that are killed, as the kernel does when memory runs out."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from tests.recaption.shard_files import sample, to_bytes, write_tar
from tests.recaption.test_runner import caption, rows_of


def children() -> Iterator[tuple[int, int]]:
    """Processes that this one started, and the bytes of memory that each has."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == os.getpid() and b"spawn" in (folder / "cmdline").read_bytes():
                yield int(folder.name), int(fields[21]) * os.sysconf("SC_PAGE_SIZE")


def test_a_killed_decoder_costs_no_row_but_that_which_kills_it(tmp_path: Path) -> None:
    huge = to_bytes(Image.new("RGB", (9000, 9000)), "PNG", compress_level=1)
    members = [part for number in range(40) for part in sample(f"k{number:02}", number)]
    deadly = [("huge.png", huge), ("huge.json", members[2][1])]
    write_tar(tmp_path / "in/s.tar", [*members[:60], *deadly, *members[60:]])
    ended, victims = threading.Event(), set()

    def kill_the_large() -> None:
        while not ended.is_set():
            for process, num_bytes in children():
                if num_bytes > 250e6 and process not in victims:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process, signal.SIGKILL)
                        victims.add(process)
            time.sleep(0.005)

    killer = threading.Thread(target=kill_the_large)
    killer.start()
    try:
        summary = caption(tmp_path / "in", tmp_path / "out", "num_decode_processes=2")
    finally:
        ended.set()
        killer.join()
    assert len(victims) == 2, "once beside others, once alone"
    assert summary.status == {"ok": 40, "failed": 1}
    reason = rows_of(tmp_path / "out", "s")["huge"]["reason"]
    assert reason.startswith("decoder-died: ")


def test_a_decoder_killed_by_chance_costs_no_row(tmp_path: Path) -> None:
    members = [part for number in range(60) for part in sample(f"k{number:02}", number)]
    write_tar(tmp_path / "in/s.tar", members)
    killed = threading.Event()

    def kill_one() -> None:
        while not killed.is_set():
            for process, num_bytes in children():
                if num_bytes > 30e6:
                    os.kill(process, signal.SIGKILL)
                    killed.set()
                    return
            time.sleep(0.002)

    killer = threading.Thread(target=kill_one)
    killer.start()
    try:
        assert caption(tmp_path / "in", tmp_path / "out").status == {"ok": 60}
    finally:
        was_killed = killed.is_set()
        killed.set()
        killer.join()
    assert was_killed
