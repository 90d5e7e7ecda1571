"""Claims on shards: which worker has which tar in hand, told by files that all workers see.

``SHARD.claim.N`` is created exclusively, so that one worker gets it, and touched again and again
while that worker lives. A claim that nobody has touched for long is stale, and the shard is taken
over with number N + 1; whoever creates that has it, if no other claim lives beside it when it
looks again. The highest number holds, so a worker that was merely asleep finds out and leaves the
shard alone.

The age of a claim is compared with a file that the asking worker touches at that moment: both
times come from the clock of the file system, and those of the machines need not agree. A claim of
a process of this machine that is not there any more is stale at once.

What can go wrong between looking and creating, and why two workers do not keep the same shard:

- Two take over the same stale claim: both want number N + 1, one gets it.
- One saw a claim that was given back a moment later, another saw none: they create N + 1 and 1.
  Whoever looks second sees the other and withdraws (both may; the shard is free again then).
- A holder wakes up while it is taken over: its claim lives again, so the other withdraws; or the
  other has looked already, and the holder finds the higher number before it writes.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recaption.common.config import ConfigError
from recaption.common.processes import process_start


@dataclass
class ClaimConfig:
    #: Seconds between two signs of life of a worker.
    heartbeat: float = 10.0
    #: Seconds without one after which another worker takes the shard over. More than a shared file
    #: system takes to show a change, which is up to a minute with NFS.
    stale_after: float = 180.0

    def __post_init__(self) -> None:
        if self.heartbeat <= 0:
            raise ConfigError(f"claims.heartbeat={self.heartbeat}: it must be more than 0")
        if self.stale_after < 3 * self.heartbeat:
            raise ConfigError(
                f"claims.stale_after={self.stale_after}: at least three times "
                f"claims.heartbeat={self.heartbeat}"
            )


@dataclass(frozen=True)
class Claim:
    """A shard that this worker has in hand, as the ``number``-th that had it."""

    shard: str
    number: int
    path: Path
    #: The file itself: a sign of life never lands on another's claim of the same name.
    descriptor: int


@dataclass(frozen=True)
class Holder:
    """Who has, or had, a shard in hand, as an onlooker sees it."""

    shard: str
    worker: str
    #: When it took the shard and gave its last sign of life, by the clock of the file system.
    taken: float
    touched: float
    #: Since then.
    seconds: float
    quiet_seconds: float
    is_alive: bool


class Claims:
    """The claims of one worker in a folder. Use as a context manager; leaving gives all back.

    Args:
        folder: on the file system that all workers see; made if it is not there.
        config: how often a worker gives a sign of life.
    """

    def __init__(self, folder: Path, config: ClaimConfig) -> None:
        self.worker = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._folder = folder
        self._config = config
        self._held: dict[str, Claim] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        folder.mkdir(parents=True, exist_ok=True)
        self._clock = folder / f".clock.{self.worker}"
        self._thread = threading.Thread(target=self._beat, name="claims", daemon=True)

    def __enter__(self) -> "Claims":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closing.set()
        self._thread.join()
        for claim in list(self._held.values()):
            self.release(claim)
        self._clock.unlink(missing_ok=True)

    def take(self, shard: str) -> Claim | None:
        """Takes a shard that nobody has, or whose holder is gone; None if someone has it.

        Whether the shard is finished must be looked at again after this: its last holder may have
        finished it, and given it back, just before.
        """
        before = list(_claims_of(self._folder, shard))
        if any(not self._is_stale(path) for _, path in before):
            return None
        number = max((number for number, _ in before), default=0) + 1
        path = self._folder / f"{shard}.claim.{number}"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return None
        content = {
            "worker": self.worker,
            "machine": _machine(),
            "process": os.getpid(),
            "process_start": process_start(os.getpid()),
            "taken": os.fstat(descriptor).st_mtime,
        }
        os.write(descriptor, json.dumps(content).encode())
        claim = Claim(shard, number, path, descriptor)
        if self._has_rival(claim):
            path.unlink(missing_ok=True)
            os.close(descriptor)
            return None
        with self._lock:
            self._held[shard] = claim
        return claim

    def is_mine(self, claim: Claim) -> bool:
        """Whether nobody has taken the shard over."""
        numbers = [number for number, _ in _claims_of(self._folder, claim.shard)]
        return self._is_own_file(claim) and max(numbers, default=0) == claim.number

    def release(self, claim: Claim) -> None:
        """Gives the shard back: finished, or for others to take."""
        with self._lock:
            if self._held.get(claim.shard) is not claim:
                return
            del self._held[claim.shard]
        if self.is_mine(claim):
            for number in range(1, claim.number):  # ours last: the highest number holds
                (self._folder / f"{claim.shard}.claim.{number}").unlink(missing_ok=True)
        if self._is_own_file(claim):
            claim.path.unlink(missing_ok=True)
        os.close(claim.descriptor)

    def _has_rival(self, claim: Claim) -> bool:
        return any(
            number > claim.number or not self._is_stale(path)
            for number, path in _claims_of(self._folder, claim.shard)
            if number != claim.number
        )

    def _is_own_file(self, claim: Claim) -> bool:
        try:
            return json.loads(claim.path.read_text())["worker"] == self.worker
        except (OSError, ValueError, KeyError):
            return False

    def _is_stale(self, path: Path) -> bool:
        if _is_of_dead_process(_read_claim(path)):
            return True
        self._clock.touch()
        try:
            age = self._clock.stat().st_mtime - path.stat().st_mtime
        except FileNotFoundError:  # given back this moment
            return True
        return age > self._config.stale_after

    def _beat(self) -> None:
        while not self._closing.wait(self._config.heartbeat):
            with self._lock:
                # A file system that is away for a while makes a claim stale, and no error.
                for claim in self._held.values():
                    with contextlib.suppress(OSError):
                        os.utime(claim.descriptor)


def read_holders(folder: Path, stale_after: float) -> list[Holder]:
    """The newest claim of each shard, for who looks on; a claim given back meanwhile is left out.

    Args:
        folder: of the claims.
        stale_after: seconds without a sign of life that make a claim stale.
    """
    newest: dict[str, tuple[int, Path]] = {}
    for shard, number, path in all_claims(folder):
        newest[shard] = max(newest.get(shard, (0, path)), (number, path))
    if not newest:
        return []
    now = _file_system_time(folder)
    holders = []
    for shard, (_, path) in sorted(newest.items()):
        try:
            touched = path.stat().st_mtime
        except FileNotFoundError:
            continue
        content = _read_claim(path)
        taken = float(content.get("taken", touched))
        quiet = max(0.0, now - touched)
        holders.append(
            Holder(
                shard,
                str(content.get("worker", "unknown")),
                taken,
                touched,
                seconds=max(0.0, now - taken),
                quiet_seconds=quiet,
                is_alive=quiet <= stale_after and not _is_of_dead_process(content),
            )
        )
    return holders


def _claims_of(folder: Path, shard: str) -> Iterator[tuple[int, Path]]:
    for name, number, path in all_claims(folder):
        if name == shard:
            yield number, path


def all_claims(folder: Path) -> Iterator[tuple[str, int, Path]]:
    """Shard, number and file of each claim."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    for name in names:
        shard, mark, number = name.rpartition(".claim.")
        if mark and number.isdecimal():
            yield shard, int(number), folder / name


def _file_system_time(folder: Path) -> float:
    """By the clock that claims are touched by; this machine's where nothing can be written."""
    clock = folder / f".clock.{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        clock.touch()
        return clock.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with contextlib.suppress(OSError):
            clock.unlink()


def _read_claim(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}  # given back this moment, or still being written
    return content if isinstance(content, dict) else {}


def _machine() -> str:
    """Where process numbers mean what they mean here: a machine since its start, or a container."""
    namespace = Path("/proc/self/ns/pid")
    boot = Path("/proc/sys/kernel/random/boot_id")
    if not (namespace.exists() and boot.exists()):
        return ""
    return f"{boot.read_text().strip()}/{namespace.readlink()}"


def _is_of_dead_process(content: dict[str, Any]) -> bool:
    """Whether its process was of this machine and is gone, its number given to another or not."""
    machine, start = content.get("machine"), content.get("process_start")
    if not machine or not start or machine != _machine():
        return False
    return process_start(int(content.get("process", 0))) != start
