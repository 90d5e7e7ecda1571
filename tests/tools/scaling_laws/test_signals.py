"""A ladder on two ranks whose terminal is closed, and that is killed."""

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pretrain.checkpoint import complete_checkpoints
from recaption.common.signals import EXIT_UNFINISHED
from tests.places import CHECKOUT
from tests.tools.scaling_laws.ladders import write_ladder


def start(ladder: Path, terminal: int | None = None) -> "subprocess.Popen[bytes]":
    """`run`, on a terminal of its own if one is given."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT)}

    def take_terminal() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored if nohup started the tests
        fcntl.ioctl(terminal or 0, termios.TIOCSCTTY, 0)

    return subprocess.Popen(
        [sys.executable, "-m", "tools.scaling_laws", "run", str(ladder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL if terminal is None else terminal,
        stderr=subprocess.DEVNULL if terminal is None else terminal,
        start_new_session=True,
        preexec_fn=None if terminal is None else take_terminal,
        env=environment,
        cwd=CHECKOUT,
    )


def wait_until(is_so: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.1)


def trainers(run: Path) -> list[int]:
    """Launchers and ranks that have this run's folder among their arguments."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if f"run={run}".encode() in words:
            found.append(int(path.parent.name))
    return found


@pytest.mark.slow
def test_no_rank_outlives_its_ladder(tmp_path: Path) -> None:
    methods = {"clip": {"recipe": [str(tmp_path / "clip.yaml")], "sizes": {"s": []}}}
    ladder = write_ladder(
        tmp_path, methods=methods, samples=[400000], num_ranks=2, cost={"text_length": 20}
    )
    run = tmp_path / "out" / "runs" / "clip-s-seed0-s400000"
    metrics = run / "metrics.jsonl"
    ours, theirs = pty.openpty()
    process = start(ladder, theirs)
    os.close(theirs)
    try:
        wait_until(lambda: metrics.exists() and bool(metrics.read_text()))
        assert len(trainers(run)) >= 3
        os.close(ours)  # the terminal is closed: SIGHUP, and nowhere to write to
        assert process.wait(60) == EXIT_UNFINISHED
        assert trainers(run) == []
        (saved,) = complete_checkpoints(run)
        log = (tmp_path / "out" / "logs" / f"{run.name}.log").read_text()
        assert f"stopped by SIGTERM after step {int(saved.name[5:])};" in log

        before = (run / ".lock").read_text()
        process = start(ladder)
        wait_until(lambda: (run / ".lock").read_text() not in ("", before))  # the ranks have met
        assert len(trainers(run)) >= 3
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait_until(lambda: trainers(run) == [], 10)
    finally:
        process.kill()
        process.wait()
        for number in trainers(run):
            os.kill(number, signal.SIGKILL)
