"""What a network and an endpoint are."""

from __future__ import annotations

from typing import Literal

import msgspec

Protocol = Literal["tcp", "udp"]
LOOPBACK6 = "::1"


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
    """A port that is published. `host_ip` is an address of the host; 0.0.0.0 and :: are all of one version."""

    host_ip: str
    host_port: int
    container_port: int
    protocol: Protocol = "tcp"


class Endpoint(msgspec.Struct):
    """One container's place on one network.

    `links` are `NAME:ALIAS`, neighbours under names that only it knows. `dns` are the resolvers behind the engine's
    own, where the container brought some.
    """

    id: str
    network_id: str
    container_id: str
    ip: str
    prefix: int
    gateway: str
    mac: str
    interface: str
    host_interface: str
    netns: str = ""
    ip6: str = ""
    prefix6: int = 0
    gateway6: str = ""
    links: list[str] = msgspec.field(default_factory=list)
    dns: list[str] = msgspec.field(default_factory=list)
    aliases: list[str] = msgspec.field(default_factory=list)
    ports: list[PortBinding] = msgspec.field(default_factory=list)


class Network(msgspec.Struct):
    """One network. The drivers `host` and `null` have no subnet and no bridge; without IPv6 there is no subnet6.

    `auxiliary` names addresses of the subnets that others use: no container gets one of them. `ipam_options` mean
    nothing here and are shown as they came. Until all of it is there it is not `made`, and goes with the engine's next
    start.
    """

    id: str
    name: str
    driver: str
    created: float
    subnet: str = ""
    gateway: str = ""
    ip_range: str = ""
    subnet6: str = ""
    gateway6: str = ""
    ip_range6: str = ""
    auxiliary: dict[str, str] = msgspec.field(default_factory=dict)
    bridge: str = ""
    made: bool = True
    internal: bool = False
    attachable: bool = False
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    options: dict[str, str] = msgspec.field(default_factory=dict)
    ipam_options: dict[str, str] | None = None
    endpoints: dict[str, Endpoint] = msgspec.field(default_factory=dict)

    @property
    def predefined(self) -> bool:
        """Whether the engine itself made it, so that it can't be removed."""
        return self.name in {"bridge", "host", "none"}

    @property
    def has_names(self) -> bool:
        """Whether its containers find one another by name: on the default network they never did."""
        return self.driver == "bridge" and self.name != "bridge"
