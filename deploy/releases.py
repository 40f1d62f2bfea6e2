"""What a host needs to know of a release, and what its replicas' containers look like. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.protocol import Release
from pipeline.services import NamedService
from pipeline.values import Frozen

SERVICE_LABEL = "shipway.service"
RELEASE_LABEL = "shipway.release"
DIGEST_LABEL = "shipway.digest"
INDEX_LABEL = "shipway.replica"
PORT_LABEL = "shipway.port"
STAGE_LABELS = ("shipway.attempt", "shipway.owner")
"""Of containers that belong to a stage, and go when it ends. Not to be found on a replica."""

STOP_GRACE = 10
"""Seconds between SIGTERM and SIGKILL. Nothing is routed to a replica any more when it is stopped."""


class Target(Frozen):
    """A release as one host sees it: this service's replicas shall run this image."""

    service: NamedService
    release: str
    image: str
    """By digest."""
    digest: str = ""

    @classmethod
    def of(cls, release: Release) -> Target:
        return cls(service=release.spec, release=release.id, image=release.image, digest=release.digest)

    def replica(self, index: int) -> str:
        """The container's name; `index` counts from 1. A release's id begins with its service's name."""
        return f"{self.release}-{index}"

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.replica(index) for index in range(1, self.service.replicas + 1))


def container_options(target: Target, index: int, secrets: Mapping[str, str]) -> dict[str, Any]:
    """Arguments for docker-py's `containers.create` of one replica."""
    service = target.service
    environment = {
        **service.env,
        **{name: secrets[name] for name in service.secrets if name in secrets},
        "SHIPWAY_SERVICE": service.name,
        "SHIPWAY_RELEASE": target.release,
    }
    options: dict[str, Any] = {
        "image": target.image,
        "name": target.replica(index),
        "hostname": target.replica(index)[:63],
        "detach": True,
        "environment": environment,
        "labels": {
            SERVICE_LABEL: service.name,
            RELEASE_LABEL: target.release,
            DIGEST_LABEL: target.digest,
            INDEX_LABEL: str(index),
            **({PORT_LABEL: str(service.port)} if service.port else {}),
            # A snapshot's image may carry these from the container that it was taken of.
            **dict.fromkeys(STAGE_LABELS, ""),
        },
        "restart_policy": {"Name": "unless-stopped"},
        "security_opt": ["no-new-privileges"],
        "init": False,
    }
    if service.command:
        options["command"] = list(service.command)
    if service.user:
        options["user"] = service.user
    if service.volumes:
        options["volumes"] = list(service.volumes)
    limits = service.resources
    if limits.memory is not None:
        options["mem_limit"] = limits.memory
    if limits.cpus is not None:
        options["nano_cpus"] = round(limits.cpus * 1e9)
    if limits.pids is not None:
        options["pids_limit"] = limits.pids
    return options
