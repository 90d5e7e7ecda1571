"""The dashboard and the alerts against what is really exported, by Prometheus itself."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from pretrain.metrics.exporter import Exporter
from tests.daemons import free_ports, running
from tests.places import CHECKOUT
from tests.pretrain.trainruns import TINY, start_training, write_training_shards

DASHBOARDS = CHECKOUT / "tools" / "dashboards"
ALERTS = DASHBOARDS / "alerts.yaml"
NAME = re.compile(r"canopy_\w+")

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")),
    reason="no prometheus, promtool: apt-get install prometheus",
)


@pytest.fixture(scope="module")
def exported() -> set[str]:
    families = Exporter("run", "node", 0).registry.collect()
    return {f.name + ("_total" if f.type == "counter" else "") for f in families}


def expressions(panels: list[dict[str, Any]]) -> list[str]:
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def test_the_dashboard_shows_every_metric_and_no_other(exported: set[str]) -> None:
    dashboard = json.loads((DASHBOARDS / "grafana.json").read_text())
    used = set(NAME.findall("\n".join(expressions(dashboard["panels"]))))
    assert used == exported
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["run"]["query"]["query"] == "label_values(canopy_step, run)"
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
    assert all('run="$run"' in expression for expression in expressions(dashboard["panels"]))
    identities = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(identities)) == len(identities)


def test_alerts_ask_for_metrics_that_are_exported(exported: set[str]) -> None:
    rules = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
    assert set(NAME.findall(" ".join(rule["expr"] for rule in rules))) <= exported
    tested = (DASHBOARDS / "alerts_test.yaml").read_text()
    for rule in rules:
        fires = rf"alertname: {rule['alert']}\n\s+exp_alerts:\n\s+- exp_labels"
        assert re.search(fires, tested), f"no test in which {rule['alert']} fires"


def test_the_table_of_metrics_is_complete(exported: set[str]) -> None:
    rows = re.findall(
        r"^\| `(canopy_(?!recaption_)\w+)`", (CHECKOUT / "docs/metrics.md").read_text(), re.M
    )
    assert sorted(rows) == sorted(exported)


@needs_prometheus
def test_promtool_accepts_the_rules_and_their_tests() -> None:
    for command in (["check", "rules", ALERTS.name], ["test", "rules", "alerts_test.yaml"]):
        done = subprocess.run(
            ["promtool", *command], cwd=DASHBOARDS, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "SUCCESS" in done.stdout


@needs_prometheus
@pytest.mark.slow
def test_a_real_prometheus_scrapes_a_real_run(tmp_path: Path) -> None:
    """While metrics that cannot be written stop nothing."""
    shards = write_training_shards(tmp_path / "shards", 40)
    config = tmp_path / "tiny.yaml"
    config.write_text(TINY.replace("data: {", f"data: {{train: {shards}, "))
    run = tmp_path / "run"
    exporter_port, prometheus_port = free_ports(2)
    training = start_training(
        config,
        *(f"run={run}", f"metrics.port={exporter_port}", "metrics.textfile=/nowhere/a.prom"),
        *("train.num_steps=100000", "train.log_every=1", "train.checkpoint_every=5"),
    )
    try:
        with prometheus(tmp_path, prometheus_port, exporter_port) as ask:
            labels = f'{{run="{run}",rank="0"}}'
            assert wait_for(lambda: ask(f"canopy_step{labels} > 5"))
            assert wait_for(lambda: ask(f"changes(canopy_step{labels}[1m]) > 0"))
            share = f'canopy_step_share{{part="compute",run="{run}"}}'
            assert 0 < wait_for(lambda: ask(share))[0] <= 1
            assert wait_for(lambda: ask(f"canopy_checkpoint_cost_seconds{labels} > 0"))
            failures = f'canopy_metrics_failures_total{{sink="textfile",run="{run}"}}'
            assert wait_for(lambda: ask(f"{failures} >= 5"))
            # Rules are those of the repository, loaded by the daemon.
            assert wait_for(lambda: ask('ALERTS{alertname="CanopyMetricsFailing"}'))
            assert ask('ALERTS{alertname="CanopyExporterDown",alertstate="firing"}') == []
        training.send_signal(signal.SIGTERM)
        output, _ = training.communicate(timeout=120)
    finally:
        if training.poll() is None:
            os.killpg(training.pid, signal.SIGKILL)
            training.wait()
    assert training.returncode == 0, output
    assert output.count("/nowhere/a.prom is not written") == 1
    with pytest.raises(urllib.error.URLError):  # nobody serves any more
        urllib.request.urlopen(f"http://127.0.0.1:{exporter_port}/metrics", timeout=5)


@contextmanager
def prometheus(
    folder: Path, port: int, exporter_port: int
) -> Iterator[Callable[[str], list[float]]]:
    """A daemon, as a function that answers a query.

    It scrapes every other second, which is the time that a scrape may take, too.
    """
    config = {
        "global": {"scrape_interval": "2s", "evaluation_interval": "500ms"},
        "rule_files": [str(ALERTS)],
        "scrape_configs": [
            {
                "job_name": "canopy",
                "static_configs": [{"targets": [f"127.0.0.1:{exporter_port}"]}],
            }
        ],
    }
    path = folder / "prometheus.yaml"
    path.write_text(yaml.safe_dump(config))
    log = folder / "prometheus.log"
    command = ["prometheus", f"--config.file={path}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    command += [f"--web.listen-address=127.0.0.1:{port}"]
    with running(command, log, cwd=folder) as daemon:

        def ask(query: str) -> list[float]:
            assert daemon.poll() is None, log.read_text()
            asked = urllib.parse.urlencode({"query": query})
            url = f"http://127.0.0.1:{port}/api/v1/query?{asked}"
            try:
                with urllib.request.urlopen(url, timeout=10) as answer:
                    return [float(r["value"][1]) for r in json.load(answer)["data"]["result"]]
            except urllib.error.URLError:  # it is still starting
                return []

        yield ask


def wait_for(found: Callable[[], list[float]], timeout: float = 180.0) -> list[float]:
    deadline = time.monotonic() + timeout
    while not (result := found()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return result
