"""What a service is: the container that runs, where, how many, how users reach it, how it is replaced."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from pipeline.values import Duration, EnvName, Flag, Frozen, Labels, Name, Size, as_tuple

Port = Annotated[int, Field(ge=1, le=65535)]
EnvText = Annotated[str, StringConstraints(max_length=32768)]
Lines = Annotated[tuple[str, ...], BeforeValidator(as_tuple, json_schema_input_type=str | list[str])]
"""One item or a list of them."""
Names = Annotated[tuple[EnvName, ...], BeforeValidator(as_tuple, json_schema_input_type=str | list[str])]


def check_volume(text: str) -> str:
    """The text, if it is a mount of a named volume or of a folder. Raises ValueError."""
    source, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    named = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", source)
    if "${" not in text and not ((named or source.startswith("/")) and target.startswith("/") and mode in _MODES):
        raise ValueError(f'"{text}" is not a volume: write name:/path, or /host/path:/path, with :ro for read only')
    return text


_MODES = ("", "ro", "rw")
Volumes = Annotated[
    tuple[Annotated[str, AfterValidator(check_volume)], ...],
    BeforeValidator(as_tuple, json_schema_input_type=str | list[str]),
]


class Resources(Frozen):
    """Limits of each container. What is not named is not limited, but for pids."""

    memory: Size | None = Field(default=None, ge=4 << 20, description="Bytes, such as 256M.")
    cpus: float | None = Field(default=None, gt=0, le=1024, description="Processors, such as 0.5.")
    pids: int | None = Field(default=None, ge=1, le=1 << 22, description="Processes and threads.")


class Health(Frozen):
    """How to tell that a replica can serve: HTTP (2xx, 3xx are good), a TCP connection or a command."""

    http: str | None = Field(default=None, pattern=r"^/\S*$", description="Path of a GET request.")
    tcp: Flag = Field(default=False, description="A connection is enough.")
    cmd: Lines | None = Field(default=None, description="Run in the container; exit code 0 is good.")
    port: Port | None = Field(default=None, description="If not the service's own.")
    interval: Duration = Field(default=1.0, gt=0, description="Between two probes.")
    timeout: Duration = Field(default=2.0, gt=0, description="Of one probe.")
    retries: int = Field(default=3, ge=1, le=1000, description="Failures in a row that make it unhealthy.")
    start_period: Duration = Field(default=30.0, description="Failures before the first success don't count.")

    @model_validator(mode="after")
    def _one_probe(self) -> Health:
        if (self.http is not None) + self.tcp + (self.cmd is not None) != 1:
            raise ValueError("a health check is exactly one of http, tcp and cmd")
        return self


class Rollout(Frozen):
    """How new replicas replace old ones."""

    strategy: Literal["rolling"] = "rolling"
    surge: int = Field(default=1, ge=0, le=100, description="Replicas above the number wanted, a host.")
    unavailable: int = Field(default=0, ge=0, le=100, description="Replicas below the number wanted, a host.")
    bake: Duration = Field(default=0.0, description="How long the new release must stay healthy at the end.")
    drain: Duration = Field(default=10.0, description="How long old replicas may finish their connections.")
    on_failure: Literal["rollback"] = Field(default="rollback", description="Every host returns to the old.")

    @model_validator(mode="after")
    def _can_move(self) -> Rollout:
        if self.surge == 0 and self.unavailable == 0:
            raise ValueError("surge and unavailable are both 0: nothing could be replaced; set one to 1")
        return self


class Service(Frozen):
    """One service, wherever it comes from: the file says these keys, a release keeps them."""

    hosts: Labels = Field(default_factory=dict, description="Labels of the workers that run it; none: all.")
    replicas: int = Field(default=1, ge=1, le=1000, description="On each host.")
    port: Port | None = Field(default=None, description="Where it listens, in the container.")
    publish: Port | None = Field(default=None, description="Where users reach it, on each host.")
    health: Health | None = None
    env: dict[EnvName, EnvText] = Field(default_factory=dict)
    secrets: Names = Field(default=(), description="Put into its environment at start.")
    volumes: Volumes = Field(default=(), description="name:/path or /host/path:/path[:ro]")
    command: Lines | None = Field(default=None, description="In place of the image's own.")
    user: str | None = None
    resources: Resources = Resources()
    rollout: Rollout = Rollout()

    @model_validator(mode="after")
    def _reachable(self) -> Service:
        if self.publish is not None and self.port is None:
            raise ValueError("publish needs port: say where the container listens")
        if self.health is not None and self.health.cmd is None and not (self.health.port or self.port):
            raise ValueError("the health check needs a port: set port, or health.port")
        return self


class NamedService(Service):
    """A service with its name: what a deploy stage and a release carry."""

    name: Name
