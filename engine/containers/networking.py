"""`docker network connect` and `disconnect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from engine.containers import creation, links, netfiles, plugging, sharing
from engine.containers.model import Container, EndpointSettings
from engine.containers.room import Room
from engine.errors import Conflict, Forbidden, NotFound
from engine.network.model import PortMapping

if TYPE_CHECKING:
    from engine.network.model import Endpoint

_EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104


async def connect(room: Room, container: Container, network: str, settings: EndpointSettings) -> None:
    """At once where the container runs, else at its next start."""
    name = room.networks.get(network).name
    mode = container.host_config.network_mode
    if mode == "host" or sharing.container_of(mode):
        raise Forbidden(
            "container sharing network namespace with another container or host "
            "cannot be connected to any other network"
        )
    if name in ("host", "none"):
        raise Forbidden(f"container cannot be connected to the {name} network")
    creation.check_endpoint(name, settings)
    async with room.registry.live(container).lock:
        networks = container.network_settings.networks
        if name in networks:
            raise Forbidden(f"endpoint with name {container.name} already exists in network {name}")
        before, resolver = dict(networks), plugging.nameserver(room, container)
        networks.pop("none", None)
        networks[name] = settings
        if container.state.alive:
            try:
                await plugging.attach(room, container, name, settings, Path(f"/proc/{container.state.pid}/ns/net"))
            except BaseException:
                container.network_settings.networks = before
                raise
            _rewrite_files(room, container, resolver)
        room.registry.save(container)


async def disconnect(room: Room, container: Container, network: str, *, force: bool) -> None:
    """Raises Forbidden when it is not on that network. With `force` the network itself may be gone."""
    try:
        name = room.networks.get(network).name
    except NotFound:
        if not force:
            raise
        name = network
    async with room.registry.live(container).lock:
        settings = container.network_settings.networks.get(name)
        if settings is None:
            raise Forbidden(f"container {container.id} is not connected to network {name}")
        if name == "host":
            raise Conflict("container cannot be disconnected from host network or connected to host network")
        if not container.state.alive:
            del container.network_settings.networks[name]
            room.registry.save(container)
            return
        resolver = plugging.nameserver(room, container)
        if settings.endpoint_id:
            netns = Path(f"/proc/{container.state.pid}/ns/net")
            gone = await room.networks.disconnect(name, container.id, netns=netns)
            plugging.tell_disconnect(room, container, name, settings)
            del container.network_settings.networks[name]
            await _publish_elsewhere(room, container, gone)
        else:
            del container.network_settings.networks[name]
        _rewrite_files(room, container, resolver)
        room.registry.save(container)


async def _publish_elsewhere(room: Room, container: Container, gone: Endpoint) -> None:
    """Another of its networks takes over the ports that one had published, on the same ports of the host."""
    if not gone.ports:
        return
    kept = [
        PortMapping(one.container_port, one.protocol, "" if one.host_ip in _EVERYWHERE else one.host_ip, one.host_port)
        for one in gone.ports
    ]
    published = await room.networks.publish(container.id, list(dict.fromkeys(kept)))
    container.network_settings.ports = plugging.bindings(container, published)


async def unlink(room: Room, container: Container, alias: str) -> None:
    """Forget one `--link`. Raises NotFound."""
    async with room.registry.live(container).lock:
        container.host_config.links = links.without(container.host_config.links, alias)
        if container.state.alive:
            plugging.write_hosts(room, container, links.in_hosts(container, room.registry, strict=False))
        room.registry.save(container)


def _rewrite_files(room: Room, container: Container, before: str | None) -> None:
    """A running container's hosts and resolv.conf, for the networks it is on now.

    `before` is the resolver it had. Its resolv.conf is left alone where somebody in it has changed it.
    """
    plugging.write_hosts(room, container, links.in_hosts(container, room.registry, strict=False))
    now = plugging.nameserver(room, container)
    if now == before:
        return
    path, texts = room.registry.paths(container).resolv, {}
    for own in (before, now):
        texts[own] = netfiles.resolv_of_host(container.host_config, room.config.dns, host_network=False, own=own)
    if path.read_text() == texts[before]:
        netfiles.write(path, texts[now], container.id_shift)
