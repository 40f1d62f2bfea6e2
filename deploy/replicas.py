"""A service's containers on this host, through the Docker Engine API. Every method can be repeated."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.models.containers import Container

from deploy.errors import EngineError, ReplicaFailed
from deploy.health import Probe, http_probe, tcp_probe
from deploy.releases import (
    PORT_LABEL,
    RELEASE_LABEL,
    SERVICE_LABEL,
    STOP_GRACE,
    Target,
    container_options,
)
from deploy.traffic.base import Backend
from pipeline.services import Health

PULL_TRIES = 4


@dataclass(frozen=True)
class Found:
    """One replica as the engine shows it. `address` is None while it has no network."""

    name: str
    service: str
    release: str
    image: str
    running: bool
    restarts: int
    pid: int
    port: int | None
    address: str | None
    network: str | None
    detail: str
    """How it ended, if it did."""

    @property
    def backend(self) -> Backend | None:
        if not self.running or self.address is None or self.port is None:
            return None
        return Backend(self.address, self.port, self.network)


class Replicas:
    """The engine's containers that carry our labels."""

    def __init__(self, engine: docker.DockerClient) -> None:
        self._engine = engine

    def pull(self, image: str) -> None:
        """Makes the image, named by digest, present. Tries again while the registry can't be reached.

        Raises EngineError.
        """
        with _translated(f"image {image}"):
            try:
                self._engine.images.get(image)
            except ImageNotFound:
                self._pull(image)

    def _pull(self, image: str) -> None:
        repository, at, digest = image.partition("@")
        for attempt in range(1, PULL_TRIES + 1):
            try:
                if at:
                    self._engine.images.pull(repository, tag=digest)
                else:
                    self._engine.images.pull(repository)
            except APIError as error:
                if attempt == PULL_TRIES or error.is_client_error():
                    raise
                time.sleep(0.25 * 2**attempt)
            else:
                return

    def find(self, service: str | None = None) -> list[Found]:
        """All replicas of the service, or of all services, by name."""
        label = SERVICE_LABEL if service is None else f"{SERVICE_LABEL}={service}"
        with _translated("the engine"):
            containers = self._engine.containers.list(all=True, filters={"label": label}, ignore_removed=True)
        return sorted((_found(container) for container in containers), key=lambda found: found.name)

    def get(self, name: str) -> Found | None:
        with _translated(name):
            try:
                return _found(self._engine.containers.get(name))
            except NotFound:
                return None

    def start(self, target: Target, index: int, secrets: Mapping[str, str]) -> None:
        """Creates the replica if it is not there, and starts it if it does not run. Raises ReplicaFailed."""
        name = target.replica(index)
        with _translated(name, ReplicaFailed):
            try:
                container = self._engine.containers.get(name)
            except NotFound:
                container = self._engine.containers.create(**container_options(target, index, secrets))
            if container.labels.get(SERVICE_LABEL) != target.service.name:
                raise ReplicaFailed(f"{name}: a container of that name exists that is not ours: remove it")
            container.start()

    def restart(self, name: str) -> None:
        """Starts a replica that exists. Raises EngineError."""
        with _translated(name):
            self._engine.containers.get(name).start()

    def remove(self, name: str, *, grace: int = STOP_GRACE) -> None:
        """SIGTERM, `grace` seconds later SIGKILL, and no trace is left. Raises EngineError."""
        with _translated(name):
            try:
                container = self._engine.containers.get(name)
                if grace:
                    container.stop(timeout=grace)
                container.remove(force=True, v=True)
            except NotFound:
                return

    def last_words(self, name: str, lines: int = 5) -> list[str]:
        """The end of its log, for the reader of a failed rollout."""
        try:
            text: Any = self._engine.containers.get(name).logs(tail=lines)
        except (DockerException, requests.RequestException):
            return []
        return [line[:500] for line in text.decode(errors="replace").splitlines() if line.strip()]

    def probe(self, found: Found, health: Health | None) -> Probe:
        """How to ask this replica. Without a health check: its port, else only that it lives."""
        if health is not None and health.cmd is not None:
            return self._command_probe(found.name, health.cmd)
        port = (health.port if health else None) or found.port
        if found.address is None or port is None:
            return lambda: self.ended(found.name) if port is None else "it has no address"
        timeout = health.timeout if health else 2.0
        if health is not None and health.http is not None:
            return http_probe(found.address, port, health.http, timeout)
        return tcp_probe(found.address, port, timeout)

    def ended(self, name: str, restarts: int = 0) -> str | None:
        """Why the replica does not run, or that the engine had to restart it; None while all is well."""
        found = self.get(name)
        if found is None:
            return "its container is gone"
        if not found.running:
            return found.detail
        if found.restarts > restarts:
            return "it ended and was started again"
        return None

    def _command_probe(self, name: str, command: tuple[str, ...]) -> Probe:
        line = list(command) if len(command) > 1 else ["/bin/sh", "-c", command[0]]

        def probe() -> str | None:
            try:
                answer: Any = self._engine.containers.get(name).exec_run(line)
            except (DockerException, requests.RequestException) as error:
                return f"{shlex.join(line)}: {error}"
            code, output = answer
            if code == 0:
                return None
            words = (output or b"").decode(errors="replace").strip().splitlines()
            return f"{shlex.join(line)} exited with {code}{': ' + words[-1][:200] if words else ''}"

        return probe


def _found(container: Container) -> Found:
    attrs: dict[str, Any] = container.attrs
    state = attrs["State"]
    network = next((n for n in attrs["NetworkSettings"]["Networks"].values() if n.get("IPAddress")), None)
    labels = attrs["Config"].get("Labels") or {}
    port = labels.get(PORT_LABEL)
    return Found(
        name=attrs["Name"].lstrip("/"),
        service=labels.get(SERVICE_LABEL, ""),
        release=labels.get(RELEASE_LABEL, ""),
        image=attrs["Config"].get("Image", ""),
        running=bool(state.get("Running")) and not state.get("Restarting"),
        restarts=int(attrs.get("RestartCount") or 0),
        pid=int(state.get("Pid") or 0),
        port=int(port) if port else None,
        address=network["IPAddress"] if network else None,
        network=_subnet(network) if network else None,
        detail=_ending(state),
    )


def _subnet(network: Mapping[str, Any]) -> str | None:
    from ipaddress import ip_interface

    length = network.get("IPPrefixLen")
    return str(ip_interface(f"{network['IPAddress']}/{length}").network) if length else None


def _ending(state: Mapping[str, Any]) -> str:
    if state.get("OOMKilled"):
        return "it used more memory than its limit and was killed"
    if state.get("Error"):
        return str(state["Error"])
    status = str(state.get("Status", ""))
    return f"it exited with {state.get('ExitCode')}" if status in ("exited", "dead", "restarting") else status


@contextmanager
def _translated(what: str, kind: type[EngineError] | type[ReplicaFailed] = EngineError) -> Iterator[None]:
    try:
        yield
    except APIError as error:
        raise kind(f"{what}: {error.explanation or error}") from error
    except (DockerException, requests.RequestException) as error:
        raise EngineError(f"{what}: the engine can't be reached: {error}") from error
