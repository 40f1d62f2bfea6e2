"""/metrics: the engine in numbers, for Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry, GCCollector, Histogram, PlatformCollector, ProcessCollector
from prometheus_client import Counter as CounterMetric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from engine.api.call import Call
from engine.api.router import Routes

routes = Routes()

_STATES = ("created", "running", "paused", "restarting", "exited", "dead")
_START_BUCKETS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1, 2.5, 5)
_STEP_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """The engine's own measurements. Containers are looked at when someone scrapes."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self.container_start = Histogram(
            "shipway_engine_container_start_seconds",
            "From the request to start a container to its first instruction.",
            buckets=_START_BUCKETS,
            registry=self.registry,
        )
        self.build_step = Histogram(
            "shipway_engine_build_step_seconds",
            "How long a build step took.",
            ["cached"],
            buckets=_STEP_BUCKETS,
            registry=self.registry,
        )
        self.layer_bytes = CounterMetric(
            "shipway_engine_layer_bytes_total",
            "Layer bytes that went to and came from registries.",
            ["direction"],
            registry=self.registry,
        )

    def text(self, containers: Iterable[Metric]) -> bytes:
        """The exposition format, `containers` included."""
        once = CollectorRegistry()
        once.register(_Once(list(containers)))
        return generate_latest(self.registry) + generate_latest(once)


class _Once:
    """Hands out metrics that were collected beforehand."""

    def __init__(self, found: list[Metric]) -> None:
        self._found = found

    def collect(self) -> Iterable[Metric]:
        return self._found


@dataclass(frozen=True)
class Sample:
    """One container that runs: its restarts, Docker's stats JSON, its OOM kills, and how many µs its processes waited
    for cpu, memory and io (some of them, or all)."""

    name: str
    restarts: int
    stats: dict[str, Any]
    oom_kills: int
    pressure: dict[str, dict[str, int]]


def container_metrics(states: Iterable[str], samples: Iterable[Sample]) -> Iterator[Metric]:
    """`states` of all containers; `samples` of those that run."""
    counted = Counter(states)
    number = GaugeMetricFamily("shipway_engine_containers", "Containers by state.", labels=["state"])
    for state in _STATES:
        number.add_metric([state], counted[state])
    yield number

    cpu = CounterMetricFamily(
        "shipway_engine_container_cpu_seconds", "Processor time of a container.", labels=["container"]
    )
    memory = GaugeMetricFamily(
        "shipway_engine_container_memory_bytes", "Memory that a container uses.", labels=["container"]
    )
    oom = CounterMetricFamily(
        "shipway_engine_container_oom_kills",
        "Processes of a container that the kernel killed for want of memory.",
        labels=["container"],
    )
    restarts = CounterMetricFamily(
        "shipway_engine_container_restarts",
        "How often a container was started again after it ended.",
        labels=["container"],
    )
    pressure = CounterMetricFamily(
        "shipway_engine_container_pressure_seconds",
        "How long some, or all, processes of a container waited for a resource (cgroup v2).",
        labels=["container", "resource", "waiting"],
    )
    for sample in samples:
        cpu.add_metric([sample.name], _dig(sample.stats, "cpu_stats", "cpu_usage", "total_usage") / 1e9)
        memory.add_metric([sample.name], _dig(sample.stats, "memory_stats", "usage"))
        oom.add_metric([sample.name], sample.oom_kills)
        restarts.add_metric([sample.name], sample.restarts)
        for resource, waited in sample.pressure.items():
            for waiting, micros in waited.items():
                pressure.add_metric([sample.name, resource, waiting], micros / 1e6)
    yield from (cpu, memory, oom, restarts, pressure)


def _dig(value: Any, *names: str) -> float:
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return float(value or 0)


@routes.add("GET", "/metrics")
async def show(call: Call) -> web.StreamResponse:
    containers = call.rooms.containers
    every = containers.list(all=True)
    samples: list[Sample] = []
    for container in every:
        if container.state.alive:
            shown = await containers.usage.stats(container, one_shot=True)
            kills, pressure = await containers.usage.strain(container)
            samples.append(Sample(container.name, container.restart_count, shown, kills, pressure))
    found = container_metrics((container.state.status for container in every), samples)
    body = call.rooms.metrics.text(found)
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})
