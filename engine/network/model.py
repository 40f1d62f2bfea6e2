"""What a network and an endpoint are."""

from __future__ import annotations

from typing import Literal

import msgspec

Protocol = Literal["tcp", "udp"]


class PortMapping(msgspec.Struct, frozen=True):
    """A wish: make `container_port` answer on the host. `host_port` 0 lets the engine choose one.

    With `host_port_end` above `host_port` any free port of that range will do.
    """

    container_port: int
    protocol: Protocol = "tcp"
    host_ip: str = ""
    host_port: int = 0
    host_port_end: int = 0


class PortBinding(msgspec.Struct, frozen=True):
    """A port that is published. `host_ip` is an address of the host, or 0.0.0.0 for all of them."""

    host_ip: str
    host_port: int
    container_port: int
    protocol: Protocol = "tcp"


class Endpoint(msgspec.Struct):
    """One container's place on one network. `links` are `NAME:ALIAS`, neighbours under names that only it knows."""

    id: str
    network_id: str
    container_id: str
    ip: str
    prefix: int
    gateway: str
    mac: str
    interface: str
    host_interface: str
    aliases: list[str] = msgspec.field(default_factory=list)
    links: list[str] = msgspec.field(default_factory=list)
    ports: list[PortBinding] = msgspec.field(default_factory=list)


class Network(msgspec.Struct):
    """One network. The drivers `host` and `null` have no subnet and no bridge.

    `auxiliary` names addresses of the subnet that others use: no container gets one of them.
    """

    id: str
    name: str
    driver: str
    created: float
    subnet: str = ""
    gateway: str = ""
    ip_range: str = ""
    auxiliary: dict[str, str] = msgspec.field(default_factory=dict)
    bridge: str = ""
    internal: bool = False
    attachable: bool = False
    enable_ipv6: bool = False
    isolated: bool = True
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    options: dict[str, str] = msgspec.field(default_factory=dict)
    endpoints: dict[str, Endpoint] = msgspec.field(default_factory=dict)

    @property
    def predefined(self) -> bool:
        """Whether the engine itself made it, so that it can't be removed."""
        return self.name in {"bridge", "host", "none"}
