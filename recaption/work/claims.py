"""Claims on shards: which worker has which tar in hand, told by files that all workers see.

``SHARD.claim.N`` is created exclusively, so that one worker gets it, and touched again and again
while that worker lives. A claim that nobody has touched for long is stale, and the shard is taken
over with number N + 1; whoever creates that has it. The highest number holds, so a worker that
was merely asleep finds out and leaves the shard alone.

The age of a claim is compared with a file that the asking worker touches at that moment: both
times come from the clock of the file system, and those of the machines need not agree. A claim of
a process of this machine that is not there any more is stale at once.
"""

import contextlib
import json
import os
import socket
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path

from recaption.common.config import ConfigError


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
        number, newest = self._newest(shard)
        if newest is not None and not self._is_stale(newest):
            return None
        path = self._folder / f"{shard}.claim.{number + 1}"
        content = json.dumps({"worker": self.worker, "machine": _machine(), "process": os.getpid()})
        try:
            with path.open("x") as file:
                file.write(content)
        except FileExistsError:
            return None
        claim = Claim(shard, number + 1, path)
        with self._lock:
            self._held[shard] = claim
        return claim

    def is_mine(self, claim: Claim) -> bool:
        """Whether nobody has taken the shard over."""
        try:
            owner = json.loads(claim.path.read_text())["worker"]
        except (OSError, ValueError, KeyError):
            return False
        return owner == self.worker and self._newest(claim.shard)[0] == claim.number

    def release(self, claim: Claim) -> None:
        """Gives the shard back: finished, or for others to take."""
        with self._lock:
            self._held.pop(claim.shard, None)
        if not self.is_mine(claim):
            return
        for number in range(1, claim.number + 1):  # ours last: the highest number holds
            (self._folder / f"{claim.shard}.claim.{number}").unlink(missing_ok=True)

    def has_living_holder(self, shard: str) -> bool:
        newest = self._newest(shard)[1]
        return newest is not None and not self._is_stale(newest)

    def _newest(self, shard: str) -> tuple[int, Path | None]:
        """The highest number of a shard's claims and its file; 0 where there is none."""
        prefix = f"{shard}.claim."
        with os.scandir(self._folder) as entries:
            names = [entry.name for entry in entries if entry.name.startswith(prefix)]
        numbers = [int(text) for name in names if (text := name.removeprefix(prefix)).isdigit()]
        if not numbers:
            return 0, None
        return max(numbers), self._folder / f"{prefix}{max(numbers)}"

    def _is_stale(self, path: Path) -> bool:
        if _is_of_dead_process(path):
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
                held = list(self._held.values())
            for claim in held:
                # A file system that is away for a while makes a claim stale, and no error.
                with contextlib.suppress(OSError):
                    os.utime(claim.path)


def _machine() -> str:
    """Where process numbers mean what they mean here: a machine since its start, or a container."""
    namespace = Path("/proc/self/ns/pid")
    boot = Path("/proc/sys/kernel/random/boot_id")
    if not (namespace.exists() and boot.exists()):
        return ""
    return f"{boot.read_text().strip()}/{namespace.readlink()}"


def _is_of_dead_process(path: Path) -> bool:
    try:
        holder = json.loads(path.read_text())
        machine, process = holder["machine"], int(holder["process"])
    except (OSError, ValueError, KeyError, TypeError):
        return False  # given back this moment, or still being written
    if not machine or machine != _machine():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
