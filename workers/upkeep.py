"""What a host does for itself: its services run as their records say, and nothing dead is left lying about."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import docker
import requests
from docker.errors import DockerException

from deploy.desired import Desired, Records
from deploy.errors import Busy, DeployError
from deploy.replicas import Found, Replicas
from deploy.traffic.base import Route, Traffic, TrafficError
from pipeline.protocol import Replica, ReplicaState
from workers.engine import discard
from workers.executors.base import OWNER_LABEL
from workers.process import owner_lives

log = logging.getLogger(__name__)


class Upkeep:
    """Looks at the host's services, one pass at a time. Not for two threads at once."""

    def __init__(self, replicas: Replicas, traffic: Traffic, records: Records) -> None:
        self._replicas = replicas
        self._traffic = traffic
        self._records = records
        self._failures: dict[str, int] = {}
        self._sick: dict[str, str] = {}

    def converge(self) -> None:
        """Starts what should run and does not, and leads traffic to those of them that can serve.

        Services that a rollout is changing right now are left to it.
        """
        for service in self._records.services():
            try:
                with self._records.lock(service, check=_nothing, timeout=0.0):
                    self._one(service)
            except Busy:
                continue
            except (DeployError, TrafficError) as error:
                log.warning("%s: %s", service, error)

    def replicas(self) -> list[Replica]:
        """Every replica on this host, for the server."""
        return [self._described(found) for found in self._replicas.find()]

    def _one(self, service: str) -> None:
        desired = self._records.read(service)
        if desired is None:
            return
        found = {each.name: each for each in self._replicas.find(service)}
        for name in desired.serving:
            each = found.get(name)
            if each is not None and not each.running:
                log.info("starting %s: %s", name, each.detail)
                with suppress(DeployError):
                    self._replicas.restart(name)
                    found[name] = self._replicas.get(name) or each
        self._lead(desired, found)

    def _lead(self, desired: Desired, found: dict[str, Found]) -> None:
        service = desired.target.service
        serving = [found[name] for name in desired.serving if name in found and found[name].backend]
        if service.publish is None:
            for each in serving:
                self._serves(desired, each)
            return
        good = [each for each in serving if self._serves(desired, each)]
        # When none seems to serve, the fault may be the probe's: no answer is not better than a bad one.
        chosen = good or serving
        backends = tuple(each.backend for each in chosen if each.backend)
        now = next((r for r in self._traffic.routes() if r.service == service.name), None)
        if now is None or set(now.backends) != set(backends) or now.port != service.publish:
            self._traffic.switch(Route(service.name, service.publish, backends))
            log.info("%s: port %s leads to %s", service.name, service.publish, [e.name for e in chosen])

    def _serves(self, desired: Desired, each: Found) -> bool:
        """One probe. Retries in a row make a replica sick, one success makes it well."""
        health = desired.target.service.health
        problem = self._replicas.probe(each, health)()
        if problem is None:
            self._failures.pop(each.name, None)
            self._sick.pop(each.name, None)
            return True
        failures = self._failures[each.name] = self._failures.get(each.name, 0) + 1
        if failures >= (health.retries if health else 3):
            self._sick[each.name] = problem
        return each.name not in self._sick

    def _described(self, found: Found) -> Replica:
        desired = self._records.read(found.service)
        serving = desired is not None and found.name in desired.serving
        if not found.running:
            state, detail = ReplicaState.EXITED, found.detail
        elif found.name in self._sick:
            state, detail = ReplicaState.UNHEALTHY, self._sick[found.name]
        elif serving:
            state, detail = ReplicaState.HEALTHY, ""
        elif desired is not None and found.release == desired.target.release:
            state, detail = ReplicaState.STARTING, ""
        else:
            state, detail = ReplicaState.DRAINING, ""
        return Replica(
            service=found.service,
            release=found.release,
            name=found.name,
            state=state,
            image=found.image,
            detail=detail,
        )


def sweep(engine: docker.DockerClient) -> int:
    """Removes containers and networks of attempts whose process is gone; gives how many."""
    removed = 0
    with suppress(DockerException, requests.RequestException):
        for container in _owned(engine.api.containers(all=True, filters={"label": OWNER_LABEL})):
            log.info("removing %s: its attempt's process is gone", container["Id"][:12])
            discard(engine, container["Id"])
            removed += 1
        for network in _owned(engine.api.networks(filters={"label": OWNER_LABEL})):
            with suppress(DockerException):
                engine.api.remove_network(network["Id"])
                removed += 1
    return removed


def _owned(things: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those whose owner is gone. An empty owner is nobody's: it came with a snapshot's image."""
    owners = ((thing, (thing.get("Labels") or {}).get(OWNER_LABEL, "")) for thing in things)
    return [thing for thing, word in owners if word and not owner_lives(word)]


def _nothing() -> None:
    return


def every(seconds: float, work: Callable[[], object], wait: Callable[[float], bool]) -> None:
    """Does `work` now and then every `seconds`, until `wait` (of an event) says to stop."""
    while True:
        began = time.monotonic()
        try:
            work()
        except Exception:
            log.exception("upkeep")
        if wait(max(0.05, seconds - (time.monotonic() - began))):
            return
