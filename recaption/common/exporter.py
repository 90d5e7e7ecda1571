"""Metrics as Prometheus reads them, with a registry of its own; telling never stops the work."""

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Summary,
    start_http_server,
    write_to_textfile,
)

#: Metrics by name: what they tell, and the label that they have besides those of all.
Described = Mapping[str, tuple[str, str | None]]


class Exporter:
    """Holds the values; `serve` and `write_textfile` hand them out.

    Args:
        prefix: of all names.
        labels: of all metrics, with the values that they have here.
        gauges: what goes up and down.
        counters: what only grows, from the start of this process; by name without `_total`.
        summaries: of what number and sum are told.
    """

    def __init__(
        self,
        prefix: str,
        labels: Mapping[str, str],
        gauges: Described,
        counters: Described,
        summaries: Described | None = None,
    ) -> None:
        self.registry = CollectorRegistry()
        self._labels = tuple(labels.values())
        self._metrics: dict[str, Any] = {}
        for kind, described in ((Gauge, gauges), (Counter, counters), (Summary, summaries or {})):
            for name, (told, own) in described.items():
                names = (*labels, own) if own else tuple(labels)
                self._metrics[name] = kind(prefix + name, told, names, registry=self.registry)
        self._server: Any = None

    def set(self, name: str, value: float | Mapping[str, float]) -> None:
        """Sets a gauge; one with a label of its own takes values by label."""
        if isinstance(value, Mapping):
            for label, single in value.items():
                self._child(name, label).set(single)
        else:
            self._child(name).set(value)

    def set_function(self, name: str, function: Callable[[], float]) -> None:
        """Has a gauge computed whenever somebody asks, in the thread that answers."""
        self._child(name).set_function(function)

    def add(self, name: str, number: float, label: str | None = None) -> None:
        """Adds to a counter, or to a gauge, of which ``number`` may be negative."""
        self._child(name, label).inc(number)

    def observe(self, name: str, value: float) -> None:
        """Adds a value to a summary."""
        self._child(name).observe(value)

    def serve(self, host: str, port: int) -> None:
        """Answers `GET http://host:port/metrics` from a thread.

        Raises:
            OSError: the port is taken, or the host is none of this node's addresses.
        """
        self._server = start_http_server(port, host, self.registry)

    def write_textfile(self, path: str) -> None:
        """Replaces the file, whole or not at all. Raises: OSError: it cannot be written."""
        write_to_textfile(path, self.registry)

    def close(self) -> None:
        """Stops serving and frees the port."""
        if self._server is not None:
            server, thread = self._server
            server.shutdown()
            server.server_close()
            thread.join()
            self._server = None

    def _child(self, name: str, label: str | None = None) -> Any:
        own = () if label is None else (label,)
        return self._metrics[name].labels(*self._labels, *own)


class Guard:
    """Keeps the work going when telling of it fails.

    Called with the name of a sink it gives a context: what fails in it is said the first time, and
    counted as ``metrics_failures`` in ``exporter``, once there is one.

    Args:
        goes_on: what goes on, for the warning: ``training``.
    """

    def __init__(self, goes_on: str) -> None:
        self.exporter: Exporter | None = None
        self._goes_on = goes_on
        self._failed: set[str] = set()

    @contextmanager
    def __call__(self, sink: str, what: str = "") -> Iterator[None]:
        """``what`` is said instead of "SINK failed"."""
        try:
            yield
        except Exception as error:
            if self.exporter is not None:
                self.exporter.add("metrics_failures", 1, sink)
            if sink in self._failed:
                return
            self._failed.add(sink)
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            # Where even the warning cannot be written, the count is all that is left.
            with contextlib.suppress(OSError):
                print(
                    f"warning: metrics: {what or f'{sink} failed'} ({reason}); {self._goes_on} "
                    "goes on, and this is said once",
                    file=sys.stderr,
                    flush=True,
                )


def node_name() -> str:
    """Slurm's own name first: several nodes of a test cluster share one host's."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def fill_in(path: str, **names: str) -> str:
    """``{name}`` of each name in a path becomes its value; other braces stay."""
    for name, value in names.items():
        path = path.replace(f"{{{name}}}", value)
    return path
