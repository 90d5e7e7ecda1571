"""Ends a rank when another one falls silent: a node that vanished, a process that was stopped.

A killed process resets its connections, and the others' collectives fail at once. A node without
power resets nothing, and they wait for `ranks.collective_timeout`, in which a save must fit.

Every rank counts up a number in the group's key-value store, from a thread, whatever its main
thread does. Rank 0 looks at all the numbers, the others at that of rank 0: two requests a beat and
rank, for any number of ranks. That is enough, as the end of rank 0 is noticed by all; and where
rank 0 has vanished, its store has, too. Numbers are only seen to move, by the clock of who looks:
no two nodes' clocks are compared.

A main thread that hangs while its process lives is not seen here: that is `collective_timeout`'s.
"""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from torch.distributed import DistError, PrefixStore, Store, TCPStore

from pretrain.distributed.launch import EXIT_LOST_RANK

_BEATS_PER_TIMEOUT = 15
_LEFT = "left"


@contextmanager
def watched_ranks(rank: int, world_size: int, timeout: float, patience: float) -> Iterator[None]:
    """Within it this process ends with `EXIT_LOST_RANK` if another rank falls silent.

    All ranks of `MASTER_ADDR` and `MASTER_PORT` must enter it, in a group that they have joined. A
    rank that leaves it without an error is not missed by the others; rank 0, which may keep the
    store, leaves as the last.

    Args:
        rank: of this process.
        world_size: one rank alone is not watched.
        timeout: seconds without a sign of life; 0: nobody is watched.
        patience: seconds that rank 0 waits for the others to leave.

    Raises:
        RuntimeError: the store does not answer, or a rank does not enter.
    """
    if world_size == 1 or timeout == 0:
        yield
        return
    watchdog = _Watchdog(_own_store(timeout), rank, world_size, timeout)
    watchdog.start()
    try:
        yield
    except BaseException:
        watchdog.stop()
        raise
    watchdog.leave(patience)


def _own_store(timeout: float) -> Store:
    """A connection of its own: that of the group is taken while somebody waits for a key."""
    # Longer than the timeout, which the clock of the watching thread is to notice first.
    patience = timedelta(seconds=2 * timeout)
    store = TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        timeout=patience,
        wait_for_workers=False,
    )
    # torchrun keeps the store, and what is in it, when it starts all ranks again.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"watchdog/{attempt}", store)


class _Watchdog:
    """Two threads: a request to a store that has vanished never returns, so the other one judges.

    Both are daemons: a run that fails ends without them.
    """

    def __init__(self, store: Store, rank: int, world_size: int, timeout: float) -> None:
        self._store, self._rank, self._timeout = store, rank, timeout
        self._interval = timeout / _BEATS_PER_TIMEOUT
        self._host = os.environ.get("SLURMD_NODENAME", socket.gethostname())
        self._num_beats = 0
        self._lock = threading.Lock()
        self._watched = list(range(1, world_size)) if rank == 0 else [0]
        self._beats: dict[int, str] = {}
        self._silence = dict.fromkeys(self._watched, 0.0)  # seconds
        self._leaving, self._stopped = threading.Event(), threading.Event()
        self._beating = threading.Thread(target=self._beat, name="watchdog-beats", daemon=True)
        self._judging = threading.Thread(target=self._judge, name="watchdog", daemon=True)

    def start(self) -> None:
        self._exchange()  # waits until all ranks are there
        self._beating.start()
        self._judging.start()

    def leave(self, patience: float) -> None:
        """Says goodbye; rank 0 waits for all."""
        self._leaving.set()
        self._beating.join(patience)
        self.stop()

    def stop(self) -> None:
        """Ends the threads, and says nothing: the others may miss this rank."""
        self._stopped.set()
        self._leaving.set()
        for thread in (self._beating, self._judging):
            thread.join(2 * self._interval)  # the first may wait for a store that has vanished

    def _beat(self) -> None:
        try:
            while not self._leaving.wait(self._interval):
                self._exchange()
            while not self._stopped.is_set():
                self._exchange(is_leaving=True)
                if self._rank != 0 or not self._silence:
                    return
                self._stopped.wait(min(self._interval, 0.1))
        except DistError:
            return  # the store's host is gone: nobody is heard of from now on

    def _exchange(self, is_leaving: bool = False) -> None:
        """A sign of life, and what is new of the others."""
        self._num_beats += 1
        # Rank 0 is looked at to the end, and ends last.
        own = _LEFT if is_leaving and self._rank != 0 else str(self._num_beats)
        self._store.set(str(self._rank), f"{self._host} {own}")
        values = self._store.multi_get([str(rank) for rank in self._watched])
        with self._lock:
            for rank, value in zip(self._watched, values, strict=True):
                beat = value.decode()
                if beat.endswith(f" {_LEFT}"):
                    self._silence.pop(rank, None)
                elif beat != self._beats.get(rank):
                    self._silence[rank] = 0.0
                self._beats[rank] = beat

    def _judge(self) -> None:
        looked = time.monotonic()
        while not self._stopped.wait(self._interval):
            before, looked = looked, time.monotonic()
            with self._lock:
                for rank in self._silence:
                    # Time in which this process was stopped itself tells nothing of the others.
                    self._silence[rank] += min(looked - before, 2 * self._interval)
                if max(self._silence.values(), default=0.0) >= self._timeout:
                    self._end()

    def _end(self) -> None:
        # Those that vanished together, with their node, are named together.
        silent = [
            f"rank {rank} on {self._beats[rank].rpartition(' ')[0]}"
            for rank, seconds in sorted(self._silence.items())
            if seconds >= self._timeout / 2
        ]
        line = (
            f"no sign of life for {self._timeout:g} s (ranks.heartbeat_timeout) of "
            f"{', '.join(silent)}: rank {self._rank} on {self._host} ends\n"
        )
        os.write(2, line.encode())  # no lock of Python's files may hold this up
        os._exit(EXIT_LOST_RANK)
