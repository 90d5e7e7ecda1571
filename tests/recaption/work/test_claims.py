import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from recaption.work.claims import ClaimConfig, Claims, all_claims, read_holders
from tests.places import CHECKOUT

CONFIG = ClaimConfig(heartbeat=0.2, stale_after=3.0)
Claimer = subprocess.Popen[str]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Claimer]]:
    """Starts a process that takes ``num_shards`` claims as soon as there is a file `go`."""
    processes: list[Claimer] = []

    def start_one(num_shards: int, *arguments: str) -> Claimer:
        script = Path(__file__).with_name("claimer.py")
        command = [sys.executable, str(script), str(tmp_path), str(num_shards), *arguments]
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
        pipe = subprocess.PIPE
        processes.append(
            subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
        )
        return processes[-1]

    yield start_one
    for process in processes:
        process.kill()
        process.communicate()


def shards_of(process: Claimer) -> list[str]:
    assert process.stdout is not None
    return list(json.loads(process.stdout.readline()))


def wait_until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


def become_other_machine(folder: Path) -> None:
    """As another machine would see the claims: the numbers of their processes mean nothing."""
    for _, _, path in all_claims(folder):
        times = path.stat()
        path.write_text(json.dumps({**json.loads(path.read_text()), "machine": "elsewhere"}))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_of_many_processes_one_gets_each_shard(
    tmp_path: Path, start: Callable[..., Claimer]
) -> None:
    several = [start(200) for _ in range(3)]
    wait_until(lambda: len(list(tmp_path.glob("ready.*"))) == 3)
    (tmp_path / "go").touch()
    got = [shard for process in several for shard in shards_of(process)]
    assert sorted(got) == sorted(f"s{number}" for number in range(200))
    kept = [process.communicate()[0] for process in several]
    assert sorted(shard for line in kept for shard in json.loads(line)) == sorted(got)
    assert not list(all_claims(tmp_path)), "a worker that leaves gives all back"
    assert not list(tmp_path.glob(".clock.*"))


def test_a_killed_holder_loses_at_once_here_and_later_elsewhere(
    tmp_path: Path, start: Callable[..., Claimer]
) -> None:
    (tmp_path / "go").touch()
    with Claims(tmp_path, CONFIG) as claims:
        killed = start(2, "hold")
        assert shards_of(killed) == ["s0", "s1"]
        assert claims.take("s0") is None
        killed.kill()  # and not waited for: it stays in the list of processes, ended
        wait_until(lambda: claims.take("s0"), seconds=2)
        become_other_machine(tmp_path)
        assert claims.take("s1") is None
        holders = read_holders(tmp_path, CONFIG.stale_after)
        (holder,) = [one for one in holders if one.shard == "s1"]
        assert holder.is_alive
        assert wait_until(lambda: claims.take("s1")).number == 2
        holders = read_holders(tmp_path, CONFIG.stale_after)
        assert [one.is_alive for one in holders] == [True, True]


def test_a_suspended_holder_finds_out(tmp_path: Path, start: Callable[..., Claimer]) -> None:
    (tmp_path / "go").touch()
    with Claims(tmp_path, CONFIG) as claims:
        asleep = start(2)
        assert shards_of(asleep) == ["s0", "s1"]
        time.sleep(CONFIG.stale_after + 0.5)
        assert claims.take("s0") is None, "signs of life keep a claim"
        asleep.send_signal(signal.SIGSTOP)
        wait_until(lambda: claims.take("s0"))
        path = tmp_path / "s1.claim.1"
        last_sign = path.stat().st_mtime_ns
        asleep.send_signal(signal.SIGCONT)
        wait_until(lambda: path.stat().st_mtime_ns > last_sign)
        assert claims.take("s1") is None, "it lives again, and has what nobody took"
        assert json.loads(asleep.communicate()[0]) == ["s1"]
        assert [shard for shard, _, _ in all_claims(tmp_path)] == ["s0"]


def test_the_clocks_of_machines_do_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Claims(tmp_path, CONFIG) as mine, Claims(tmp_path, CONFIG) as other:
        assert mine.take("s") is not None
        for shift in (-1e6, 1e6):
            now = time.time() + shift
            monkeypatch.setattr(time, "time", lambda now=now: now)
            assert other.take("s") is None
            (holder,) = read_holders(tmp_path, CONFIG.stale_after)
            assert holder.is_alive and holder.seconds < 60


def test_who_sees_another_claim_beside_its_own_withdraws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One saw no claim, the other one that was given back just then: `claim.1` and `claim.2`."""
    with Claims(tmp_path, CONFIG) as slow, Claims(tmp_path, CONFIG) as fast:
        opened = os.open

        def take_first(path: Path, *arguments: int) -> int:
            if str(path).endswith("s.claim.1"):
                monkeypatch.setattr(os, "open", opened)
                claim = fast.take("s")
                assert claim is not None
                claim.path.rename(tmp_path / "s.claim.2")
            return opened(path, *arguments)

        monkeypatch.setattr(os, "open", take_first)
        assert slow.take("s") is None
        assert [path.name for _, _, path in all_claims(tmp_path)] == ["s.claim.2"]


def test_a_sign_of_life_touches_no_other_workers_claim(tmp_path: Path) -> None:
    with Claims(tmp_path, CONFIG) as mine:
        claim = mine.take("s")
        assert claim is not None
        claim.path.unlink()  # taken over, finished, and taken by a third one under the same name
        claim.path.write_text("{}")
        os.utime(claim.path, (1, 1))
        time.sleep(0.6)
        assert claim.path.stat().st_mtime == 1
        assert not mine.is_mine(claim)
        mine.release(claim)
        assert claim.path.exists()


def test_a_number_that_was_given_to_another_process_is_not_the_holder(tmp_path: Path) -> None:
    with Claims(tmp_path, CONFIG) as mine, Claims(tmp_path, CONFIG) as other:
        claim = mine.take("s")
        assert claim is not None and other.take("s") is None
        content = json.loads(claim.path.read_text())
        claim.path.write_text(json.dumps({**content, "process_start": 1}))
        assert other.take("s") is not None


def test_threads_of_one_worker_do_not_share_a_shard(tmp_path: Path) -> None:
    with Claims(tmp_path, CONFIG) as claims:
        got = []
        threads = [threading.Thread(target=lambda: got.append(claims.take("s"))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(claim is not None for claim in got) == 1
