"""Servers that a test starts and ends."""

import contextlib
import os
import random
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def running(command: list[str], log: Path, **options: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that writes to `log` and is ended with the block; `options` are Popen's."""
    with log.open("a") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_ports(number: int) -> list[int]:
    """Ports of loopback that nobody holds, all different.

    They may be bound long after: the system gives none of these to clients, nor for port 0, and
    each of pytest's processes draws from its own.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = 10_000 + 1_000 * (worker % 10)
    free: list[int] = []
    for port in random.sample(range(first, first + 1_000), 1_000):
        with contextlib.suppress(OSError), socket.socket() as tried:
            tried.bind(("127.0.0.1", port))
            free.append(port)
            if len(free) == number:
                return free
    raise OSError(f"no {number} free ports from {first} on")
