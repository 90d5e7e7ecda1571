"""The dashboard, the alerts and the table of recaptioning against what is really exported."""

import json
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from recaption.metrics import COUNTERS, GAUGES, PREFIX, SUMMARIES
from tests.places import CHECKOUT

DASHBOARDS = CHECKOUT / "tools" / "dashboards"
ALERTS = DASHBOARDS / "recaption_alerts.yaml"
NAME = re.compile(rf"{PREFIX}\w+")
EXPORTED = {
    *(PREFIX + name for name in (*GAUGES, *SUMMARIES)),
    *(f"{PREFIX}{name}_total" for name in COUNTERS),
}


def used_in(expressions: list[str]) -> set[str]:
    """Metrics by name; number and sum of a summary are the summary."""
    names = NAME.findall("\n".join(expressions))
    return {re.sub("_(sum|count)$", "", name) for name in names}


def expressions(panels: list[dict[str, Any]]) -> list[str]:
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    dashboard = json.loads((DASHBOARDS / "recaption_grafana.json").read_text())
    panels = dashboard["panels"]
    assert used_in(expressions(panels)) == EXPORTED
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert variables["output"]["query"]["query"] == f"label_values({PREFIX}running, output)"
    for expression in expressions(panels):
        for name in NAME.findall(expression):
            assert f'{name}{{output="$output"' in expression
    assert len({panel["id"] for panel in panels}) == len(panels)
    trainer = json.loads((DASHBOARDS / "grafana.json").read_text())
    assert dashboard["uid"] != trainer["uid"]


def test_alerts_ask_for_metrics_that_are_exported_and_each_is_seen_to_fire() -> None:
    rules = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
    assert used_in([rule["expr"] for rule in rules]) <= EXPORTED
    tested = (DASHBOARDS / "recaption_alerts_test.yaml").read_text()
    for rule in rules:
        fires = rf"alertname: {rule['alert']}\n\s+exp_alerts:\n\s+- exp_labels"
        assert re.search(fires, tested), f"no test in which {rule['alert']} fires"


def test_the_table_of_metrics_is_complete() -> None:
    text = (CHECKOUT / "docs/metrics.md").read_text()
    rows = re.findall(rf"^\| `({PREFIX}\w+)`", text, re.M)
    assert sorted(rows) == sorted(EXPORTED)


@pytest.mark.skipif(not shutil.which("promtool"), reason="no promtool: apt-get install prometheus")
def test_promtool_accepts_the_rules_their_tests_and_the_panels() -> None:
    commands = [
        ["check", "rules", ALERTS.name],
        ["test", "rules", "recaption_alerts_test.yaml"],
    ]
    for command in commands:
        done = subprocess.run(
            ["promtool", *command], cwd=DASHBOARDS, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "SUCCESS" in done.stdout
    # What Grafana fills in, filled in: as rules, expressions are parsed.
    dashboard = json.loads((DASHBOARDS / "recaption_grafana.json").read_text())
    asked = [
        {"record": f"panel:{number}", "expr": expr.replace("$__rate_interval", "1m")}
        for number, expr in enumerate(expressions(dashboard["panels"]))
    ]
    rules = yaml.safe_dump({"groups": [{"name": "panels", "rules": asked}]})
    done = subprocess.run(
        ["promtool", "check", "rules", "/dev/stdin"], input=rules, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
