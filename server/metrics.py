"""`/metrics`: counted from the rows at each scrape, so that a restart loses nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from pipeline.protocol import ReplicaState
from pipeline.run.states import RUN_ENDED
from pipeline.store.figures import Figures, Histogram

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
WEBHOOKS = Counter(
    "shipway_webhooks", "Deliveries of webhooks by what came of them.", ("kind", "outcome"), registry=None
)
"""In memory: a refused delivery must not cause a write."""


class _Rows(Collector):
    def __init__(self, figures: Figures) -> None:
        self.figures = figures

    def collect(self) -> Iterator[Any]:
        f = self.figures
        runs = _whole(f.runs, sorted(RUN_ENDED))
        yield _counter("shipway_runs", "Runs that ended.", ("pipeline", "result"), runs)
        yield _histogram("shipway_run_duration_seconds", "First claim to end of a run.", ("pipeline",), f.run_duration)
        of_stage = ("pipeline", "stage", "kind", "result")
        yield _histogram("shipway_stage_duration_seconds", "First claim to end of a stage.", of_stage, f.stage_duration)
        yield _histogram("shipway_stage_queue_seconds", "An attempt's wait for its worker.", (), f.stage_queue)
        yield _histogram(
            "shipway_trigger_to_start_seconds", "Event received to the run's first claim.", (), f.trigger_to_start
        )
        of_release = ("service", "environment", "result")
        deployments = _whole(f.deployments, ("passed", "failed"))
        yield _counter("shipway_deployments", "Releases whose rollout ended.", of_release, deployments)
        rollbacks = _whole({(key[0], ""): 0 for key in f.deployments} | f.rollbacks, ("failed_rollout", "manual"))
        yield _counter("shipway_rollbacks", "Returns to an older release.", ("service", "reason"), rollbacks)
        yield _histogram("shipway_lead_time_seconds", "Commit to live.", (), f.lead_time)
        yield _histogram(
            "shipway_time_to_restore_seconds", "Start of a failed rollout to a whole service.", (), f.time_to_restore
        )
        yield from self._gauges()

    def _gauges(self) -> Iterator[Any]:
        workers = GaugeMetricFamily("shipway_workers", "Registered workers.", labels=("state",))
        for state in ("online", "lost"):
            workers.add_metric((state,), sum(host.state == state for host in self.figures.hosts))
        yield workers
        depth = GaugeMetricFamily("shipway_queue_depth", "Stages that wait for a worker.", labels=("queue",))
        for queue, number in self.figures.waiting.items():
            depth.add_metric((queue,), number)
        yield depth
        replicas = GaugeMetricFamily("shipway_replicas", "Containers of services.", labels=("service", "state"))
        seen = [replica for host in self.figures.hosts if host.state == "online" for replica in host.replicas]
        for service in sorted({replica.service for replica in seen}):
            for state in ReplicaState:
                number = sum(each.service == service and each.state is state for each in seen)
                replicas.add_metric((service, state.value), number)
        yield replicas


def _whole(values: Mapping[Any, int], last: Sequence[str]) -> dict[tuple[str, ...], int]:
    """With a zero for each value of the last label that was not met yet: an increase from nothing to one is
    none for Prometheus."""
    first = {key[:-1]: None for key in values}
    return {(*key, label): values.get((*key, label), 0) for key in first for label in last}


def _counter(name: str, text: str, labels: tuple[str, ...], values: Any) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, number in values.items():
        family.add_metric(key, number)
    return family


def _histogram(name: str, text: str, labels: tuple[str, ...], values: Iterable[Histogram]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=labels)
    for value in values:
        buckets = [(f"{bound:g}", float(number)) for bound, number in value.buckets]
        family.add_metric(value.labels, [*buckets, ("+Inf", float(value.count))], value.sum)
    return family


async def metrics(request: Request) -> Response:
    figures: Figures = await run_in_threadpool(request.app.state.store.figures)
    registry = CollectorRegistry()
    registry.register(_Rows(figures))
    registry.register(WEBHOOKS)
    return Response(generate_latest(registry), media_type=CONTENT_TYPE)
