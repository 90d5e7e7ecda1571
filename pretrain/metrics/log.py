"""`metrics.jsonl`: one object a line, one line every few steps, and one for each validation."""

import errno
import json
import math
import os
from pathlib import Path
from typing import Any

from recaption.common.files import atomic_write

METRICS = "metrics.jsonl"


class MetricsLog:
    """Appends to a run's metrics. Lines behind ``last_step``, left by an earlier attempt that went
    further than its last checkpoint, are dropped."""

    def __init__(self, path: Path, last_step: int) -> None:
        kept = [row for row in _read(path) if row["step"] <= last_step]
        with atomic_write(path) as temporary:
            temporary.write_text("".join(_line(row) for row in kept))
        self._file = path.open("ab", buffering=0)

    def write(self, row: dict[str, Any]) -> None:
        """Appends a line, whole or not at all.

        Raises:
            OSError: the disk is full, or the like.
        """
        line = _line(row).encode()
        end = self._file.seek(0, os.SEEK_END)
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._file.name)
        except OSError:
            self._file.truncate(end)  # a piece of a line would spoil the next one too
            raise

    def close(self) -> None:
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All rows of training; an unfinished last line, left by a kill, is left out."""
    return [row for row in _read(path) if "validation" not in row]


def read_validations(path: Path) -> list[dict[str, Any]]:
    """All validations: `step`, `seconds`, and their figures under `validation`."""
    return [row for row in _read(path) if "validation" in row]


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines]


def _line(row: dict[str, Any]) -> str:
    return json.dumps(_finite(row)) + "\n"


def _finite(value: Any) -> Any:
    """The same with null for numbers that JSON does not know."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
