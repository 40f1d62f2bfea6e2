"""A container and the networks: plugging it in at its start, and out at its end."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.containers import links, netfiles, validation
from engine.containers.hostconfig import PortBinding
from engine.containers.model import Container, EndpointSettings, IPAMConfig
from engine.containers.room import Room
from engine.errors import EngineError, InvalidInput
from engine.network.model import PortMapping

if TYPE_CHECKING:
    from engine.network.model import Endpoint
    from engine.network.model import PortBinding as Published

_log = logging.getLogger(__name__)


def nameserver(room: Room, container: Container) -> str | None:
    """The engine's own resolver, if it is on a network with names."""
    names = [network for network in container.network_settings.networks if network not in ("host", "none")]
    return next((server for network in names if (server := room.networks.nameserver(network))), None)


def wants_network(container: Container) -> bool:
    """Whether there is a network to plug it into."""
    return any(name not in ("none", "host") for name in container.network_settings.networks)


async def plug(room: Room, container: Container, netns: Path) -> None:
    """Onto all its networks; its hosts file then has its addresses."""
    settings = container.network_settings
    settings.sandbox_key = str(netns)
    settings.ports = bindings(container, ())
    plugged = False
    for name, wanted in settings.networks.items():
        if name in ("none", "host"):
            continue
        if not plugged and not wanted.mac_address:
            wanted.mac_address = container.config.mac_address
        await attach(room, container, name, wanted, netns)
        plugged = True
    write_hosts(room, container, links.in_hosts(container, room.registry))
    for other in links.owners(container, room.registry):
        if other.state.alive:
            write_hosts(room, other, links.in_hosts(other, room.registry, strict=False))


def write_hosts(room: Room, container: Container, linked: Sequence[tuple[str, str]]) -> None:
    """Its hosts file, for the addresses it has now."""
    networks = container.network_settings.networks
    endpoints = [(name, one) for name, one in networks.items() if one.ip_address]
    # On an internal network there is no way out, and yet the host is at that address.
    gateway = next((room.networks.get(name).gateway for name, _ in endpoints), "")
    addresses = [address for _, one in endpoints for address in (one.ip_address, one.global_ipv6_address) if address]
    text = netfiles.hosts(
        [*netfiles.extra_hosts(container.host_config.extra_hosts, gateway), *linked],
        addresses,
        container.hostname,
        container.config.domainname,
    )
    netfiles.write(room.registry.paths(container).hosts, text, container.id_shift)


async def attach(room: Room, container: Container, network: str, wanted: EndpointSettings, netns: Path) -> Endpoint:
    """Onto one network; what it got is written into `wanted`. The first that leads outside publishes its ports."""
    names = [container.name, container.short_id, *wanted.aliases]
    if container.config.hostname and container.config.hostname != container.short_id:
        names.append(container.config.hostname)
    asked = wanted.ipam_config or IPAMConfig()
    endpoint = await room.networks.attach(
        network,
        container.id,
        netns,
        aliases=names,
        links=links.for_resolver(container, network, wanted),
        ports=() if is_published(container) else port_mappings(container),
        address=asked.ipv4_address or None,
        address6=asked.ipv6_address or None,
        mac=wanted.mac_address or None,
        dns=container.host_config.dns,
        driver_options=wanted.driver_opts,
    )
    if endpoint.ports:
        container.network_settings.ports = bindings(container, endpoint.ports)
    _note(wanted, endpoint)
    room.events.publish(
        "network", "connect", endpoint.network_id, {"container": container.id, "name": network, "type": "bridge"}
    )
    return endpoint


def _note(wanted: EndpointSettings, endpoint: Endpoint) -> None:
    wanted.network_id, wanted.endpoint_id = endpoint.network_id, endpoint.id
    wanted.ip_address, wanted.ip_prefix_len = endpoint.ip, endpoint.prefix
    wanted.global_ipv6_address, wanted.global_ipv6_prefix_len = endpoint.ip6, endpoint.prefix6
    wanted.gateway, wanted.ipv6_gateway = endpoint.gateway, endpoint.gateway6
    wanted.dns_names = list(endpoint.aliases)
    wanted.desired_mac, wanted.mac_address = wanted.mac_address, endpoint.mac


def recall(room: Room, container: Container) -> None:
    """What a container that runs has of its networks, where a crash came before its record said so."""
    settings = container.network_settings
    there = {room.networks.get(one.network_id).name: one for one in room.networks.endpoints(container.id)}
    had = {name: wanted for name, wanted in settings.networks.items() if wanted.endpoint_id}
    if {name: one.id for name, one in there.items()} == {name: wanted.endpoint_id for name, wanted in had.items()}:
        return
    for wanted in had.values():
        forget(wanted)
    for name, endpoint in there.items():
        _note(settings.networks.setdefault(name, EndpointSettings()), endpoint)
    settings.ports = bindings(container, [port for endpoint in there.values() for port in endpoint.ports])
    settings.sandbox_key = f"/proc/{container.state.pid}/ns/net"


def is_published(container: Container) -> bool:
    """Whether one of its networks has its ports."""
    return any(container.network_settings.ports.values())


async def unplug(room: Room, container: Container) -> None:
    """Off all networks; what it had is forgotten. Idempotent, and never fails."""
    was_on = [(n, e) for n, e in container.network_settings.networks.items() if e.endpoint_id]
    try:
        await room.networks.detach(container.id)
    except EngineError:
        _log.exception("container %s: could not take it off its networks", container.short_id)
    for name, endpoint in was_on:
        tell_disconnect(room, container, name, endpoint)
        forget(endpoint)
    container.network_settings.ports = {}
    container.network_settings.sandbox_key = ""


def tell_disconnect(room: Room, container: Container, network: str, endpoint: EndpointSettings) -> None:
    attributes = {"container": container.id, "name": network, "type": "bridge"}
    room.events.publish("network", "disconnect", endpoint.network_id, attributes)


def forget(endpoint: EndpointSettings) -> None:
    """What an endpoint had only while the container ran. An address the user fixed is kept by the config."""
    endpoint.endpoint_id = endpoint.gateway = endpoint.ip_address = ""
    endpoint.ipv6_gateway = endpoint.global_ipv6_address = ""
    endpoint.ip_prefix_len = endpoint.global_ipv6_prefix_len = 0
    endpoint.mac_address = endpoint.desired_mac


def port_mappings(container: Container) -> list[PortMapping]:
    """What to publish: the bindings asked for and, with `-P`, every exposed port on a free one."""
    wanted: list[PortMapping] = []
    host_config = container.host_config
    for text, asked in host_config.port_bindings.items():
        port, protocol = validation.parse_port(text)
        wanted += [_mapping(port, protocol, binding) for binding in asked or [PortBinding()]]
    if host_config.publish_all_ports:
        for text in container.config.exposed_ports:
            port, protocol = validation.parse_port(text)
            if not any(key in host_config.port_bindings for key in (text, f"{port}/{protocol}", str(port))):
                wanted.append(_mapping(port, protocol, PortBinding()))
    return wanted


def _mapping(port: int, protocol: str, binding: PortBinding) -> PortMapping:
    if protocol not in ("tcp", "udp"):
        raise InvalidInput(f"can't publish port {port}/{protocol}: only tcp and udp can be published")
    first, _, last = binding.host_port.partition("-")
    if not all(part == "" or (part.isascii() and part.isdigit() and int(part) < 65536) for part in (first, last)):
        raise InvalidInput(f"invalid host port {binding.host_port!r}")
    return PortMapping(
        container_port=port,
        protocol="udp" if protocol == "udp" else "tcp",
        host_ip=binding.host_ip,
        host_port=int(first or 0),
        host_port_end=int(last or 0),
    )


def bindings(container: Container, published: Sequence[Published]) -> dict[str, list[PortBinding] | None]:
    """Docker's NetworkSettings.Ports: None for a port that is only exposed."""
    ports: dict[str, list[PortBinding] | None] = {}
    for text in container.config.exposed_ports:
        port, protocol = validation.parse_port(text)
        ports[f"{port}/{protocol}"] = None
    for binding in published:
        key = f"{binding.container_port}/{binding.protocol}"
        ports[key] = [*(ports.get(key) or []), PortBinding(binding.host_ip, str(binding.host_port))]
    return ports
