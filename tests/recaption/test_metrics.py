"""Metrics of running workers, scraped as Prometheus does."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from recaption.common.config import ConfigError, load_config
from recaption.config import RunConfig
from recaption.metrics import MetricsConfig, RunMetrics
from recaption.runner import run
from recaption.table import CaptionRow
from tests.daemons import free_ports
from tests.recaption.shard_files import picture, sample, to_bytes, write_tar

Values = dict[str, float]


def read(text: str) -> Values:
    """Values by name without the prefix, with the label that is the metric's own, if any."""
    values = {}
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            assert {"output", "node", "worker"} <= one.labels.keys()
            own = [one.labels[name] for name in one.labels.keys() - {"output", "node", "worker"}]
            values["/".join([one.name.removeprefix("canopy_recaption_"), *own])] = one.value
    return values


def scrape(port: int) -> Values:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return read(answer.read().decode())
    except (urllib.error.URLError, ConnectionError):
        return {}


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A worker with four tars that take a while, and the port that it should serve."""
    data = to_bytes(picture(0, (2500, 2500)), quality=30)
    text = json.dumps({"sentences": ["A picture of blocks"]}).encode()
    for number in range(4):
        keys = [f"{number}-{index}" for index in range(30)]
        members = [m for key in keys for m in ((f"{key}.jpg", data), (f"{key}.json", text))]
        members += [("corrupt.jpg", b"\xff\xd8"), *sample("hm", 1, ["Hm"])]
        write_tar(tmp_path / f"in/s{number}.tar", members)
    (port,) = free_ports(1)
    arguments = [f"input={tmp_path}/in", f"output={tmp_path}/out", "num_decode_processes=1"]
    metrics = [f"port={port}", f"textfile={tmp_path}/{{worker}}.prom", "worker=7", "every=0.1"]
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "recaption", "run", "engine.name=existing", *arguments),
            *(f"metrics.{setting}" for setting in metrics),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process, port
    process.kill()
    process.communicate()


def test_a_running_worker_tells_where_it_stands(
    running: tuple[subprocess.Popen[str], int], tmp_path: Path
) -> None:
    process, port = running
    deadline = time.monotonic() + 120
    while not (values := scrape(port)).get("shards_finished_total"):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, values
        time.sleep(0.02)
    assert values["running"] == 1
    assert values["shards"] == 4 and 1 <= values["shards_left"] <= 3
    assert values["images_total"] >= 32
    assert values["rows_total/ok"] >= 30
    assert values["rows_total/failed"] >= 1 and values["rows_total/rejected"] >= 1
    assert values["claims_taken_total"] >= 1 and values["claims_held"] in (0, 1, 2)
    assert values["claims_taken_over_total"] == values["claims_lost_total"] == 0
    assert 0 < values["table_seconds_sum"] / values["table_seconds_count"] < 60
    # One process decodes large pictures for an engine that has nothing to do.
    assert values["engine_wait_seconds_total"] > values["image_wait_seconds_total"] >= 0
    assert values["request_slots"] == 64
    assert 0 <= values["images_ready"] <= 33
    assert abs(values["progress_timestamp_seconds"] - time.time()) < 60
    assert values["engine_restarts_total"] == values["decoder_deaths_total"] == 0

    in_file = read((tmp_path / "7.prom").read_text())
    assert in_file["running"] == 1 and in_file["images_total"] > 0
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    in_file = read((tmp_path / "7.prom").read_text())
    assert in_file["running"] == 0 and in_file["claims_held"] == 0
    # Not in a scrape, which may come between the two counts of a row.
    assert in_file["rows_total/failed"] == in_file["failures_total/corrupt-image"] >= 1
    assert in_file["rows_total/rejected"] == in_file["rejects_total/too-short"] >= 1
    assert scrape(port) == {}


def test_all_rows_are_counted_and_a_port_that_is_taken_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    members = [*sample("a", 0), *sample("b", 1), *sample("hm", 2, ["Hm"]), ("bad.jpg", b"")]
    write_tar(tmp_path / "in/a.tar", members)
    (tmp_path / "out/work").mkdir(parents=True)
    (tmp_path / "out/work/a.claim.1").write_text("{}")  # of a worker that has long been gone
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = [f"metrics.port={taken.getsockname()[1]}", "claims.stale_after=0.4"]
        settings += [f"metrics.textfile={tmp_path}/a.prom", "claims.heartbeat=0.1"]
        arguments = [f"input={tmp_path}/in", f"output={tmp_path}/out", *settings]
        time.sleep(0.6)
        summary = run(load_config(RunConfig, ["engine.name=existing", *arguments]))
    assert summary.status == {"ok": 2, "rejected": 1, "failed": 1}
    values = read((tmp_path / "a.prom").read_text())
    rows = {name: value for name, value in values.items() if name.startswith("rows_total")}
    assert rows == {"rows_total/ok": 2, "rows_total/rejected": 1, "rows_total/failed": 1}
    assert values["images_total"] == 4 and values["shards_finished_total"] == 1
    assert values["claims_taken_over_total"] == 1 and values["shards_left"] == 0
    assert values["running"] == 0 and values["metrics_failures_total/server"] == 1
    assert capsys.readouterr().err.count("warning: metrics: nobody serves 127.0.0.1:") == 1


def test_what_engines_count_themselves(tmp_path: Path) -> None:
    engine: Any = SimpleNamespace(num_restarts=0, retries=Counter())
    preparers = SimpleNamespace(num_deaths=0)
    path = tmp_path / "a.prom"
    with RunMetrics(MetricsConfig(textfile=str(path), every=1e-9), "out") as metrics:
        metrics.watch(engine, preparers)
        engine.num_restarts = 2
        engine.retries.update({"timeout": 3})
        row = CaptionRow("k", None, "long", "ok", caption="A dog.", num_tokens=5)
        metrics.rows([row], completes_image=False)
        engine.retries.update({"timeout": 1, "http-429": 1})
        preparers.num_deaths = 1
        metrics.rows([row], completes_image=True)
        values = read(path.read_text())
    assert values["engine_restarts_total"] == 2 and values["decoder_deaths_total"] == 1
    assert values["engine_retries_total/timeout"] == 4
    assert values["engine_retries_total/http-429"] == 1
    assert (values["tokens_total"], values["images_total"]) == (10, 1)


def test_a_worker_that_fails_is_left_as_running(tmp_path: Path) -> None:
    path = tmp_path / "a.prom"
    with pytest.raises(ZeroDivisionError), RunMetrics(MetricsConfig(textfile=str(path)), "out"):
        _ = 1 / 0
    assert read(path.read_text())["running"] == 1


def test_workers_are_named_by_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "12")
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURMD_NODENAME", "n3")
    with RunMetrics(MetricsConfig(textfile=str(tmp_path / "{node}-{worker}.prom")), "out"):
        pass
    text = (tmp_path / "n3-12-0.prom").read_text()
    assert re.search(r'running\{node="n3",output="out",worker="12-0"\} 0', text)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("port", 70000, "at most 65535"), ("textfile", "a.txt", r"in \.prom"), ("every", 0, "than 0")],
)
def test_settings_that_cannot_be(key: str, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=f"metrics.{key}.*{message}"):
        load_config(RunConfig, ["input=i", "output=o", f"metrics.{key}={value}"])
