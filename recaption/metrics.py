"""What a worker tells Prometheus: a port or a file (`metrics.port`, `metrics.textfile`).

Failing to tell never stops the work: it is counted, and said once with its reason.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from recaption.common.config import ConfigError
from recaption.common.exporter import Exporter, Guard, fill_in, node_name
from recaption.common.exporter_config import ExporterConfig
from recaption.table import CaptionRow

PREFIX = "canopy_recaption_"

#: By name: what they tell, and the label that they have besides output, node and worker.
GAUGES: dict[str, tuple[str, str | None]] = {
    "running": ("1 while at work; 0 after it has ended or was stopped as asked", None),
    "progress_timestamp_seconds": (
        "When a row was last made, or the tars were last looked through, Unix time",
        None,
    ),
    "shards": ("Tars of the input", None),
    "shards_left": ("Tars that are not finished, or not seen to be, those in hand included", None),
    "claims_held": ("Tars in hand", None),
    "requests_in_flight": ("Requests that the engine has", None),
    "request_slots": ("Requests that it takes at one time", None),
    "images_ready": ("Decoded images that wait for the engine", None),
    "servers_up": ("Servers that can be reached; engine.name=server only", None),
}
#: By name without `_total`, from the start of the worker.
COUNTERS: dict[str, tuple[str, str | None]] = {
    "images": ("Images that got all their rows", None),
    "rows": ("Rows", "status"),
    "tokens": ("Tokens generated", None),
    "rejects": ("Captions rejected, by the reason's code", "reason"),
    "failures": ("Rows without a caption, by the reason's code", "reason"),
    "engine_wait_seconds": ("Time in which the engine had room and no image was ready", None),
    "image_wait_seconds": ("Time in which an image was ready and the engine had no room", None),
    "engine_restarts": ("Engines that died and were started again", None),
    "engine_recycles": ("Engines started again because of their memory", None),
    "engine_retries": ("Requests sent to a server again, by cause", "cause"),
    "decoder_deaths": ("Pools of decoding processes that an image killed", None),
    "claims_taken": ("Tars taken in hand", None),
    "claims_taken_over": ("Those of them that another worker had left", None),
    "claims_lost": ("Tars that another worker took over from this one", None),
    "shards_finished": ("Tables written", None),
    "metrics_failures": ("Metrics that could not be written", "sink"),
}
SUMMARIES: dict[str, tuple[str, str | None]] = {
    "table_seconds": ("Time to write a table and to give the tar back", None),
}


@dataclass
class MetricsConfig(ExporterConfig):
    #: Seconds between two writings of the text file.
    every: float = 15.0
    #: Name of this worker among those of its node; empty: the numbers of Slurm's array task and
    #: process, or else of this process.
    worker: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.every <= 0:
            raise ConfigError(f"metrics.every={self.every}: it must be more than 0")


class RunMetrics:
    """Tells nothing unless `metrics.port` or `metrics.textfile` is given. Use as a context manager.

    Args:
        config: where metrics go.
        output: the folder of the tables, which names the run.
    """

    def __init__(self, config: MetricsConfig, output: str) -> None:
        self._config = config
        self._guard = Guard("captioning")
        self._exporter: Exporter | None = None
        self._written = 0.0
        self._watched: list[tuple[str, Callable[[], int | Counter[str]], Counter[str]]] = []
        if not (config.port or config.textfile):
            return
        node, worker = node_name(), config.worker or _worker_name()
        self._textfile = fill_in(config.textfile, node=node, worker=worker)
        labels = {"output": output, "node": node, "worker": worker}
        with self._guard("prometheus"):
            self._exporter = Exporter(PREFIX, labels, GAUGES, COUNTERS, SUMMARIES)
            self._guard.exporter = self._exporter

    def __enter__(self) -> Self:
        for name, (_, label) in COUNTERS.items():
            if label is None:
                self.add(name, 0)
        self.set("running", 1)
        self.set("progress_timestamp_seconds", time.time())
        if self._exporter is not None and self._config.port:
            where = f"{self._config.host}:{self._config.port}"
            with self._guard("server", f"nobody serves {where}"):
                self._exporter.serve(self._config.host, self._config.port)
        self._write_textfile()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """A worker that fails is left as running; one that was stopped as asked is not."""
        self._read_totals()
        for name in ("claims_held", "images_ready", "requests_in_flight"):
            self.set(name, 0)  # given back, and dropped
        if kind is None or issubclass(kind, KeyboardInterrupt):
            self.set("running", 0)
        self._write_textfile()
        if self._exporter is not None:
            with self._guard("server"):
                self._exporter.close()

    def set(self, name: str, value: float) -> None:
        if self._exporter is not None:
            with self._guard("prometheus"):
                self._exporter.set(name, value)

    def add(self, name: str, number: float, label: str | None = None) -> None:
        if self._exporter is not None:
            with self._guard("prometheus"):
                self._exporter.add(name, number, label)

    @contextmanager
    def waiting(self, name: str) -> Iterator[None]:
        """Adds the seconds that the block takes to a counter."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.add(name, time.monotonic() - started)

    @contextmanager
    def counted(self, name: str) -> Iterator[None]:
        """A gauge is one more within the block."""
        self.add(name, 1)
        try:
            yield
        finally:
            self.add(name, -1)

    def watch(self, engine: Any, preparers: Any) -> None:
        """Totals that they count themselves, as far as they do, are read with every row."""
        sources = {
            "engine_restarts": lambda: getattr(engine, "num_restarts", 0),
            "engine_recycles": lambda: getattr(engine, "num_recycles", 0),
            "engine_retries": lambda: getattr(engine, "retries", Counter()),
            "decoder_deaths": lambda: preparers.num_deaths,
        }
        self._watched = [(name, read, Counter()) for name, read in sources.items()]
        if self._exporter is not None and hasattr(engine, "num_servers_up"):
            with self._guard("prometheus"):
                self._exporter.set_function("servers_up", lambda: engine.num_servers_up)

    def rows(self, rows: list[CaptionRow], completes_image: bool) -> None:
        """Rows that were made, and whether their image has all of its rows now."""
        if self._exporter is None:
            return
        for row in rows:
            self.add("rows", 1, row.status)
            self.add("tokens", row.num_tokens or 0)
            if row.status != "ok":
                by_reason = "rejects" if row.status == "rejected" else "failures"
                self.add(by_reason, 1, (row.reason or "").split(":")[0])
        self.add("images", completes_image)
        self._progressed()

    def shards_left(self, number: int) -> None:
        """The tars were looked through; a worker that waits for those of others does it often."""
        self.set("shards_left", number)
        self._progressed()

    def took(self, claim_number: int) -> None:
        """A tar is in hand, as the so-manieth worker that has it."""
        self.add("claims_taken", 1)
        self.add("claims_taken_over", claim_number > 1)
        self.add("claims_held", 1)

    @contextmanager
    def finishing(self, lost: type[Exception]) -> Iterator[None]:
        """A table is written and its tar given back in the block, or another worker has it."""
        started = time.monotonic()
        try:
            yield
        except lost:
            self.add("claims_lost", 1)
            raise
        else:
            self.add("shards_finished", 1)
            if self._exporter is not None:
                with self._guard("prometheus"):
                    self._exporter.observe("table_seconds", time.monotonic() - started)
        finally:
            self.add("claims_held", -1)

    def _progressed(self) -> None:
        self.set("progress_timestamp_seconds", time.time())
        self._read_totals()
        if time.monotonic() - self._written >= self._config.every:
            self._write_textfile()

    def _read_totals(self) -> None:
        for name, read, known in self._watched:
            total = read()
            now = total if isinstance(total, Counter) else Counter({"": total})
            for label, number in now.items():
                self.add(name, max(number - known[label], 0), label or None)
            known.update(now - known)

    def _write_textfile(self) -> None:
        self._written = time.monotonic()
        if self._exporter is not None and self._textfile:
            with self._guard("textfile", f"{self._textfile} is not written"):
                self._exporter.write_textfile(self._textfile)


def _worker_name() -> str:
    numbers = [os.environ.get(name) for name in ("SLURM_ARRAY_TASK_ID", "SLURM_PROCID")]
    return "-".join(number for number in numbers if number) or str(os.getpid())
