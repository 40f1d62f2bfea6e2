"""`docker network connect` and `disconnect`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engine.containers import links, netfiles, plugging, sharing
from engine.containers.model import Container, EndpointSettings
from engine.containers.room import Room
from engine.errors import Conflict, Forbidden, NotFound


async def connect(room: Room, container: Container, network: str, settings: EndpointSettings) -> None:
    """At once where the container runs, else at its next start."""
    name = room.networks.get(network).name
    mode = container.host_config.network_mode
    if mode == "host" or sharing.container_of(mode):
        raise Forbidden("container sharing network namespace with another container or host cannot be connected")
    if name in ("host", "none"):
        raise Forbidden(f"container cannot be connected to the {name} network")
    async with room.registry.live(container).lock:
        networks = container.network_settings.networks
        if name in networks:
            raise Forbidden(f"endpoint with name {container.name} already exists in network {name}")
        before = plugging.nameservers(room, container)
        networks.pop("none", None)
        networks[name] = settings
        if container.state.alive:
            try:
                await plugging.attach(room, container, name, settings, Path(f"/proc/{container.state.pid}/ns/net"))
            except BaseException:
                del networks[name]
                raise
            _rewrite_files(room, container, before)
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
        if container.state.alive:
            netns = Path(f"/proc/{container.state.pid}/ns/net")
            await room.networks.disconnect(name, container.id, netns=netns)
            plugging.tell_disconnect(room, container, name, settings)
        before = plugging.nameservers(room, container)
        del container.network_settings.networks[name]
        if container.state.alive:
            _rewrite_files(room, container, before)
        room.registry.save(container)


async def unlink(room: Room, container: Container, alias: str) -> None:
    """Forget one `--link`. Raises NotFound."""
    async with room.registry.live(container).lock:
        container.host_config.links = links.without(container.host_config.links, alias)
        if container.state.alive:
            _rewrite_hosts(room, container)
        room.registry.save(container)


def _rewrite_files(room: Room, container: Container, before: Sequence[str]) -> None:
    """`before` are the resolvers it had. Its resolv.conf is left alone where somebody in it has changed it."""
    _rewrite_hosts(room, container)
    now = plugging.nameservers(room, container)
    path, host_config = room.registry.paths(container).resolv, container.host_config
    if now == before or path.read_text() != netfiles.resolv_of_host(host_config, before, host_network=False):
        return
    netfiles.write(path, netfiles.resolv_of_host(host_config, now, host_network=False), container.id_shift)


def _rewrite_hosts(room: Room, container: Container) -> None:
    """A running container's hosts file, for the addresses it has now."""
    endpoints = [one for one in container.network_settings.networks.values() if one.ip_address]
    gateway = next((one.gateway for one in endpoints if one.gateway), "")
    text = netfiles.hosts(
        [*netfiles.extra_hosts(container.host_config.extra_hosts, gateway), *links.in_hosts(container, room.registry)],
        [one.ip_address for one in endpoints],
        container.hostname,
        container.config.domainname,
    )
    netfiles.write(room.registry.paths(container).hosts, text, container.id_shift)
