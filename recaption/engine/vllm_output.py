"""What vLLM and its processes print: into a file, and from there the cause of a failure."""

import contextlib
import logging
import os
import re
import sys
from collections.abc import Iterator
from multiprocessing import resource_tracker
from pathlib import Path

#: `(EngineCore pid=7) ERROR 11-22 16:24:35 [core.py:1103] ` of vLLM's loggers.
_PREFIX = re.compile(r"^\([^()]* pid=\d+\) (?:[A-Z]+ [\d-]+ [\d:]+ \[[^\]]*\] ?)?")
_EXCEPTION = re.compile(r"^[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit)(?:: .*)?$")
#: Exceptions that only say that another process had one.
_MESSENGERS = (
    *("Engine core initialization failed", "WorkerProc initialization failed"),
    *("EngineDeadError", "RuntimeError: cancelled"),
)


class EngineLog:
    """The file that takes what vLLM prints.

    Args:
        path: of the file, which is appended to; None leaves everything on the console.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._begin = 0

    @contextlib.contextmanager
    def divert(self) -> Iterator[None]:
        """Sends stdout and stderr of this process into the file, for as long as the block takes.

        Processes that are started within keep writing there. vLLM's messages in this process go
        there for good. Nothing else may want to print meanwhile.
        """
        if self.path is None:
            yield
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._begin = self.path.stat().st_size if self.path.exists() else 0
        streams = {1: sys.stdout, 2: sys.stderr}
        kept = {number: os.dup(number) for number in streams}
        with self.path.open("ab") as file:
            for number, stream in streams.items():
                stream.flush()
                os.dup2(file.fileno(), number)
        try:
            # Python's own helper process, which complains of what killed processes leave behind.
            resource_tracker.ensure_running()
            yield
        finally:
            for number, stream in streams.items():
                stream.flush()
                os.dup2(kept[number], number)
                os.close(kept[number])
            self._take_messages()

    def root_cause(self) -> str | None:
        """The first exception that was printed since the last ``divert`` began."""
        if self.path is None:
            return None
        with self.path.open(errors="replace") as file:
            file.seek(self._begin)
            return root_cause(file.read())

    def __str__(self) -> str:
        return f" (more in {self.path})" if self.path else " (see what it said above)"

    def _take_messages(self) -> None:
        logger = logging.getLogger("vllm")
        for handler in logger.handlers:
            if isinstance(handler, logging.FileHandler):
                return
        if logger.handlers and self.path is not None:
            to_file = logging.FileHandler(self.path)
            to_file.setFormatter(logger.handlers[0].formatter)
            logger.handlers = [to_file]


def root_cause(text: str) -> str | None:
    """The first exception in vLLM's output: where several processes fail, that of the first."""
    for line in text.splitlines():
        line = _PREFIX.sub("", line).strip()
        if _EXCEPTION.match(line) and not any(words in line for words in _MESSENGERS):
            return line[:300]
    return None
