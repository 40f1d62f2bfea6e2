"""The dashboard, the scrape configuration and the alerts, on a real Prometheus that watches a real system.

The last of the files here: it pushes to a service whose releases the others count.
"""

from __future__ import annotations

import json
import math
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from scripts.story.system import Ports
from tests.e2e.conftest import Up
from tests.e2e.hosts import ROOT, wait_for
from tests.ports import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.kernel, pytest.mark.redis, pytest.mark.timeout(180)]

OPS = ROOT / "deploy" / "ops"
# What Grafana puts in their place.
VARIABLES = {"$__rate_interval": "1m", "$__range": "5m", "$__interval": "1m", "$pipeline": "web|api", "$service": ".*"}
# What has happened while Prometheus looked on: a push that went live. The others may be zero.
HAPPENED = frozenset({
    "Healthy replicas", "Workers online", "Runs that passed", "Runs by result", "Duration of runs",
    "Push to first stage", "Duration of stages, mean", "Stages by kind and result",
    "Where an attempt's time goes, mean", "Wait of an attempt for its worker", "Workers",
    "Attempts taken, by worker", "Rollouts by result", "Commit to live, median", "Replicas by state",
    "Healthy replicas by service", "Containers by state", "Processors used", "Memory", "Start of a container",
    "Build steps", "Layers moved by engines", "Registry requests by status", "Registry: bytes stored",
    "Webhooks by outcome",
})  # fmt: skip


@dataclass
class Prometheus:
    url: str

    def get(self, path: str, **query: str) -> Any:
        answer = requests.get(f"{self.url}/api/v1/{path}", params=query, timeout=10)
        assert answer.ok, answer.text
        return answer.json()["data"]

    def values(self, expression: str) -> list[float]:
        """What an instant query gives now; without NaN, which is what Grafana draws nothing for."""
        found = self.get("query", query=expression)["result"]
        return [value for series in found if not math.isnan(value := float(series["value"][1]))]


def configuration(ports: Ports) -> str:
    """Ours, with this system's ports, and more often."""
    text = (OPS / "prometheus.yml").read_text()
    for known, here in ((7700, ports.server), (7701, ports.metrics), (7750, ports.registry)):
        assert text.count(f'["127.0.0.1:{known}"]') == 1
        text = text.replace(f'["127.0.0.1:{known}"]', f'["127.0.0.1:{here}"]')
    config = yaml.safe_load(text)
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(OPS / "rules.yml")]
    return yaml.safe_dump(config)


@pytest.fixture(scope="module")
def prometheus(up: Up, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "prometheus.yml").write_text(configuration(up.system.ports))
    port = free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    made = Prometheus(f"http://127.0.0.1:{port}")
    try:
        wait_for(lambda: _answers(made, process, folder / "log"), "Prometheus' start")
        yield made
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _answers(prometheus: Prometheus, process: subprocess.Popen[bytes], log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        return requests.get(f"{prometheus.url}/-/ready", timeout=5).ok
    except requests.ConnectionError:
        return False


@pytest.fixture(scope="module")
def watched(up: Up, prometheus: Prometheus) -> Prometheus:
    """It has seen the system before, during and after a push."""
    wait_for(lambda: prometheus.values("count_over_time(up[1m]) > 1 and up == 1")[2:], "two scrapes of each part")
    before = prometheus.values('sum(shipway_deployments_total{service="web",result="passed"})')
    up.web.write("site/style.css", up.web.read("site/style.css") + "/* watched */\n")
    assert up.push(up.web, "Watched") == "passed"
    wait_for(
        lambda: prometheus.values('sum(shipway_deployments_total{service="web",result="passed"})') > before,
        "a scrape of what the push did",
    )
    return prometheus


def panels() -> list[tuple[str, str]]:
    """Each query of the dashboard with its panel's title."""
    dashboard = json.loads((OPS / "grafana-shipway.json").read_text())
    return [(panel["title"], target["expr"]) for panel in dashboard["panels"] for target in panel.get("targets", ())]


def test_every_part_is_scraped_and_every_rule_works(watched: Prometheus) -> None:
    targets = watched.get("targets")["activeTargets"]
    assert {target["labels"]["job"] for target in targets} == {"shipway-server", "shipway-worker", "shipway-registry"}
    assert {target["health"] for target in targets} == {"up"}, targets
    rules = [rule for group in watched.get("rules")["groups"] for rule in group["rules"]]
    wait_for(
        lambda: all(rule["health"] == "ok" for group in watched.get("rules")["groups"] for rule in group["rules"]),
        "an evaluation of every rule",
    )
    assert len(rules) > 10
    critical = [a for a in watched.get("alerts")["alerts"] if a["labels"]["severity"] == "critical"]
    assert critical == [], "all is well, and nobody is woken"


@pytest.mark.parametrize(("title", "expression"), panels())
def test_a_panel_has_data(watched: Prometheus, title: str, expression: str) -> None:
    query = re.sub(r"\$\w+", lambda match: VARIABLES[match[0]], expression)
    wait_for(lambda: watched.values(query), f"data for {title!r}: {query}")
    if title in HAPPENED:
        wait_for(lambda: max(watched.values(query), default=0) > 0, f"more than nothing in {title!r}: {query}")


def test_every_panel_that_must_move_is_there() -> None:
    assert {title for title, _ in panels()} >= HAPPENED
