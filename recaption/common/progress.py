"""Progress of long work: how much is done, how fast, how long it will take still."""

import sys
import time
from types import TracebackType
from typing import Self, TextIO


class Progress:
    """Prints ``done/total, rate, time left``.

    On a terminal one line is kept up to date; elsewhere (a job's log) a line is printed at most
    every ``interval`` seconds. Use as a context manager: the last state is always printed.
    """

    def __init__(
        self,
        total: int | None,
        unit: str,
        label: str = "",
        interval: float = 10.0,
        stream: TextIO | None = None,
    ) -> None:
        self.total = total
        self.unit = unit
        self.label = f"{label}: " if label else ""
        self.done = 0
        self._stream = stream if stream is not None else sys.stderr
        self._is_terminal = self._stream.isatty()
        self._interval = min(interval, 0.2) if self._is_terminal else interval
        self._started = self._printed = time.monotonic()
        self._note = ""

    def advance(self, count: int = 1, note: str = "") -> None:
        self.done += count
        self._note = note
        if time.monotonic() - self._printed >= self._interval:
            self._print()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    @property
    def rate(self) -> float:
        """Units a second since the start."""
        return self.done / max(self.seconds, 1e-9)

    def __str__(self) -> str:
        of_total = f"/{self.total:,}" if self.total is not None else ""
        text = f"{self.label}{self.done:,}{of_total} {self.unit}, {self.rate:.1f} {self.unit}/s"
        if self.total is not None and 0 < self.done < self.total:
            text += f", {format_seconds((self.total - self.done) / self.rate)} left"
        else:
            text += f", {format_seconds(self.seconds)}"
        return f"{text}, {self._note}" if self._note else text

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._print(end="\n")

    def _print(self, end: str | None = None) -> None:
        self._printed = time.monotonic()
        if self._is_terminal:
            self._stream.write(f"\r\x1b[K{self}{end or ''}")
        else:
            self._stream.write(f"{self}\n")
        self._stream.flush()


def format_seconds(seconds: float) -> str:
    """``75`` -> ``1m15s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
