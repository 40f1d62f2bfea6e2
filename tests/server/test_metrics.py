"""/metrics as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from pipeline.settings import Settings
from tests.server.conftest import night
from tests.server.running import Running


@pytest.fixture(scope="module")
def server(settings: Settings) -> Iterator[Running]:
    with night(settings) as server:
        yield server


def families(server: Running) -> dict[str, Metric]:
    answer = server.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = list(text_string_to_metric_families(answer.text))
    assert len({family.name for family in found}) == len(found)
    return {family.name: family for family in found}


def value(server: Running, family: str, sample: str, **labels: str) -> float | None:
    metric = families(server)[family]
    return next((each.value for each in metric.samples if each.name == sample and each.labels == labels), None)


@pytest.mark.parametrize(
    ("family", "sample", "labels", "expected"),
    [
        ("shipway_runs", "shipway_runs_total", {"pipeline": "web", "result": "passed"}, 2),
        ("shipway_runs", "shipway_runs_total", {"pipeline": "web", "result": "failed"}, 2),
        ("shipway_runs", "shipway_runs_total", {"pipeline": "mail", "result": "passed"}, 1),
        ("shipway_run_duration_seconds", "shipway_run_duration_seconds_count", {"pipeline": "web"}, 4),
        (
            "shipway_stage_duration_seconds",
            "shipway_stage_duration_seconds_count",
            {"pipeline": "web", "stage": "unit", "kind": "test", "result": "failed"},
            1,
        ),
        (
            "shipway_deployments",
            "shipway_deployments_total",
            {"service": "web", "environment": "production", "result": "failed"},
            1,
        ),
        (
            "shipway_deployments",
            "shipway_deployments_total",
            {"service": "web", "environment": "production", "result": "passed"},
            2,
        ),
        ("shipway_rollbacks", "shipway_rollbacks_total", {"service": "web", "reason": "failed_rollout"}, 1),
        ("shipway_replicas", "shipway_replicas", {"service": "web", "state": "healthy"}, 4),
        ("shipway_replicas", "shipway_replicas", {"service": "web", "state": "unhealthy"}, 0),
        ("shipway_workers", "shipway_workers", {"state": "online"}, 3),
        ("shipway_lead_time_seconds", "shipway_lead_time_seconds_count", {}, 3),
        ("shipway_time_to_restore_seconds", "shipway_time_to_restore_seconds_count", {}, 1),
        ("shipway_queue_depth", "shipway_queue_depth", {"queue": "any"}, 1),
    ],
)
def test_the_nights_figures(server: Running, family: str, sample: str, labels: dict[str, str], expected: float) -> None:
    assert value(server, family, sample, **labels) == expected


def test_every_family_of_the_agreement_is_there(server: Running) -> None:
    names = families(server)
    for name in (
        "shipway_runs", "shipway_run_duration_seconds", "shipway_stage_duration_seconds",
        "shipway_stage_queue_seconds", "shipway_trigger_to_start_seconds", "shipway_workers", "shipway_queue_depth",
        "shipway_deployments", "shipway_lead_time_seconds", "shipway_rollbacks", "shipway_time_to_restore_seconds",
        "shipway_replicas", "shipway_webhooks",
    ):  # fmt: skip
        assert name in names, name
        assert names[name].documentation, name


def test_buckets_add_up(server: Running) -> None:
    for family in families(server).values():
        if family.type != "histogram":
            continue
        counts = [sample.value for sample in family.samples if sample.name.endswith("_count")]
        last = [sample.value for sample in family.samples if sample.labels.get("le") == "+Inf"]
        assert counts == last, family.name
        series: dict[tuple[tuple[str, str], ...], list[float]] = {}
        for sample in family.samples:
            if sample.name.endswith("_bucket"):
                key = tuple(sorted((k, v) for k, v in sample.labels.items() if k != "le"))
                series.setdefault(key, []).append(sample.value)
        assert all(values == sorted(values) for values in series.values()), family.name


def test_no_label_grows_without_bound(server: Running) -> None:
    allowed = {
        "pipeline", "result", "stage", "kind", "state", "queue", "service", "environment", "reason", "outcome", "le",
    }  # fmt: skip
    used = {label for family in families(server).values() for sample in family.samples for label in sample.labels}
    assert used <= allowed


def test_deliveries_are_counted_by_what_came_of_them(server: Running) -> None:
    def refused() -> float:
        labels = {"kind": "generic", "outcome": "refused"}
        return value(server, "shipway_webhooks", "shipway_webhooks_total", **labels) or 0.0

    before = refused()
    server.hook("generic", {"repository": "web"}, secret="guess")
    assert refused() == before + 1
