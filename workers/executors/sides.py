"""Containers beside a stage's own (a database for its tests), on a network of the stage's own."""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from typing import Any

import requests
from docker.errors import DockerException

from deploy.health import Probe, http_probe, tcp_probe, wait_healthy
from pipeline.plan.models import ContainerSpec, SideService
from pipeline.services import Health
from workers.engine import discard, ensure_image, explained, kill
from workers.executors.base import StageFailed, Work


def start(work: Work, spec: ContainerSpec, stack: ExitStack) -> str | None:
    """Starts them all and waits until they are healthy. Gives the network's name, None when there are none.

    `stack` removes everything. Raises StageFailed.
    """
    if not spec.services:
        return None
    name = work.name()
    with work.phase("create"), explained("network"):
        network: Any = work.engine.networks.create(name, labels=work.labels)
    stack.callback(_forget, network)
    started = {key: _start(work, key, side, name, stack) for key, side in spec.services.items()}
    for key, side in spec.services.items():
        if side.health is not None:
            _wait(work, key, side.health, started[key], name)
    return name


def _start(work: Work, key: str, side: SideService, network: str, stack: ExitStack) -> str:
    with work.phase("pull"):
        image = ensure_image(work.engine, side.image, work.log.say, work.lease.check)
    with work.phase("create"), explained(f"service {key}"):
        made = work.engine.containers.create(
            image=image.id,
            command=list(side.command) if side.command else None,
            name=work.name(key),
            hostname=key,
            environment=dict(side.env),
            labels=work.labels,
            network=network,
            networking_config={network: work.engine.api.create_endpoint_config(aliases=[key])},
            security_opt=["no-new-privileges"],
        )
        container = str(made.id)
        stack.callback(discard, work.engine, container)
        work.lease.on_stop(lambda: kill(work.engine, container))
        made.start()
    return container


def _wait(work: Work, key: str, health: Health, container: str, network: str) -> None:
    with work.phase("start"), explained(f"service {key}"):
        attrs = work.engine.containers.get(container).attrs
        address = attrs["NetworkSettings"]["Networks"][network]["IPAddress"]
        probe = _probe(work, health, container, address)
        problem = wait_healthy(
            probe, health, died=lambda: _ended(work, container), check=work.lease.check, sleep=time.sleep
        )
    if problem is not None:
        raise StageFailed(f"service {key} did not become healthy: {problem}")


def _probe(work: Work, health: Health, container: str, address: str) -> Probe:
    if health.cmd is not None:
        line = list(health.cmd) if len(health.cmd) > 1 else ["/bin/sh", "-c", health.cmd[0]]

        def probe() -> str | None:
            answer: Any = work.engine.containers.get(container).exec_run(line)
            return None if answer.exit_code == 0 else f"{line[-1]} exited with {answer.exit_code}"

        return probe
    if health.port is None:
        raise StageFailed("the health check of a side service needs its port", retryable=False)
    if health.http is not None:
        return http_probe(address, health.port, health.http, health.timeout)
    return tcp_probe(address, health.port, health.timeout)


def _ended(work: Work, container: str) -> str | None:
    state = work.engine.containers.get(container).attrs["State"]
    return None if state.get("Running") else f"it exited with {state.get('ExitCode')}"


def _forget(network: Any) -> None:
    with suppress(DockerException, requests.RequestException):
        network.remove()
