"""`metrics.jsonl`: one object a line, one line every few steps."""

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
        kept = [row for row in read_metrics(path) if row["step"] <= last_step]
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
    """All rows; an unfinished last line, left by a kill, is left out."""
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines]


def _line(row: dict[str, Any]) -> str:
    shown = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }
    return json.dumps(shown) + "\n"
