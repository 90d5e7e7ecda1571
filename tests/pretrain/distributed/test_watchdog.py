"""Real ranks, some of which are stopped: to the others as if their node had vanished."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pretrain.distributed.launch import EXIT_LOST_RANK
from pretrain.distributed.ranks import RanksConfig, joined_ranks
from recaption.common.config import ConfigError
from tests.places import CHECKOUT

TIMEOUT = 3.0
Rank = subprocess.Popen[str]


def add_up_for_ever(rank: int, folder: Path) -> None:
    """In a collective of its main thread, as in training."""
    with joined_ranks(RanksConfig(heartbeat_timeout=TIMEOUT)) as ranks:
        ranks.any(False)
        (folder / f"{rank}.began").touch()
        while not ranks.any((folder / "enough").exists()):
            time.sleep(0.05)


def last_one_is_late(rank: int, folder: Path) -> None:
    """The others are done; a long step, a save or a compilation is what keeps the last."""
    with joined_ranks(RanksConfig(heartbeat_timeout=TIMEOUT)) as ranks:
        ranks.any(False)
        until = time.monotonic() + 2 * TIMEOUT
        while rank == ranks.world_size - 1 and time.monotonic() < until:
            pass  # in Python, which only one thread runs at a time
        if rank == ranks.world_size - 1:
            (folder / "late").touch()
    was_late = (folder / "late").exists()
    print(f"late: {was_late}, threads: {[thread.name for thread in threading.enumerate()]}")


@contextmanager
def running(results: Callable[[int, Path], None], num_ranks: int, folder: Path) -> Iterator:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {"WORLD_SIZE": str(num_ranks), "LOCAL_WORLD_SIZE": str(num_ranks)}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.pretrain.distributed.test_watchdog"]
    ranks = [
        subprocess.Popen(
            [*command, results.__name__, str(folder)],
            cwd=CHECKOUT,
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(num_ranks)
    ]
    try:
        yield ranks
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()


def wait_until_they_train(ranks: list[Rank], folder: Path) -> None:
    deadline = time.monotonic() + 120
    while not all((folder / f"{rank}.began").exists() for rank in range(len(ranks))):
        assert time.monotonic() < deadline and all(rank.poll() is None for rank in ranks)
        time.sleep(0.05)


@pytest.mark.parametrize(("num_ranks", "stopped", "by"), [(2, 0, 1), (3, 2, 0)])
def test_a_rank_that_is_stopped_is_named_and_given_up(
    num_ranks: int, stopped: int, by: int, tmp_path: Path
) -> None:
    with running(add_up_for_ever, num_ranks, tmp_path) as ranks:
        wait_until_they_train(ranks, tmp_path)
        ranks[stopped].send_signal(signal.SIGSTOP)
        started = time.monotonic()
        output, _ = ranks[by].communicate(timeout=60)
        assert TIMEOUT * 0.8 < time.monotonic() - started < TIMEOUT * 4
        host = socket.gethostname()
        silent = f"no sign of life for 3 s (ranks.heartbeat_timeout) of rank {stopped} on {host}:"
        assert f"{silent} rank {by} on {host} ends" in output.splitlines()
        assert ranks[by].returncode == EXIT_LOST_RANK
        for rank in {*range(num_ranks)} - {stopped, by}:
            assert ranks[rank].wait(timeout=60) != 0


def test_a_rank_that_is_long_done_or_long_busy_is_not_missed(tmp_path: Path) -> None:
    with running(last_one_is_late, 3, tmp_path) as ranks:
        outputs = [rank.communicate(timeout=120)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0, 0], outputs
    # The one that keeps the store waits for the others, and no thread is left.
    expected = [f"late: {late}, threads: ['MainThread']\n" for late in (True, False, True)]
    assert outputs == expected


def test_a_job_that_is_suspended_goes_on(tmp_path: Path) -> None:
    with running(add_up_for_ever, 2, tmp_path) as ranks:
        wait_until_they_train(ranks, tmp_path)
        for number, seconds in ((signal.SIGSTOP, 2 * TIMEOUT), (signal.SIGCONT, 1.0)):
            for rank in ranks:
                rank.send_signal(number)
            time.sleep(seconds)
        (tmp_path / "enough").touch()
        outputs = [rank.communicate(timeout=60)[0] for rank in ranks]
        assert [rank.returncode for rank in ranks] == [0, 0], outputs


def test_a_negative_time_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"ranks\.heartbeat_timeout=-1"):
        RanksConfig(heartbeat_timeout=-1)


if __name__ == "__main__":
    globals()[sys.argv[1]](int(os.environ["RANK"]), Path(sys.argv[2]))
