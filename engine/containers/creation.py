"""`docker create`: from a wish to a container that can be started."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from engine.containers import diskquota, imagedefaults, links, mounts, names, sharing, times, validation, workingdir
from engine.containers.hostconfig import HostConfig, LogSettings, PortBinding
from engine.containers.model import (
    Container,
    ContainerConfig,
    EndpointSettings,
    MountPoint,
    NetworkingConfig,
    NetworkSettings,
)
from engine.containers.room import Room
from engine.errors import InvalidInput, NotFound
from engine.network.addresses import parse_address, parse_mac

if TYPE_CHECKING:
    from engine.images.image import Image

_DEFAULT_NETWORKS = ("", "default", "bridge")


async def create(
    room: Room,
    name: str | None,
    config: ContainerConfig,
    host_config: HostConfig,
    networking: NetworkingConfig,
    *,
    user_namespaces: bool,
) -> Container:
    """Checks, decides, makes the volumes, the folders and the record. All or nothing.

    Raises NotFound for the image only: clients then pull it, and ask again.
    """
    image: Image = room.images.get(config.image)
    try:
        return await _create(room, image, name, config, host_config, networking, user_namespaces=user_namespaces)
    except NotFound as error:
        raise InvalidInput(str(error)) from None


async def _create(
    room: Room,
    image: Image,
    name: str | None,
    config: ContainerConfig,
    host_config: HostConfig,
    networking: NetworkingConfig,
    *,
    user_namespaces: bool,
) -> Container:
    sharing.check_network(config, host_config, networking)
    config = imagedefaults.apply(config, image.config.config)
    host_config = msgspec.structs.replace(host_config)
    validation.check(config, host_config)
    diskquota.check(host_config.storage_opt, room.config.data_root)
    sharing.check(host_config)
    if not host_config.log_config.type:
        host_config.log_config = LogSettings("json-file", host_config.log_config.config)
    if host_config.pids_limit is not None and host_config.pids_limit <= 0:
        host_config.pids_limit = None
    if host_config.network_mode in _DEFAULT_NETWORKS:
        host_config.network_mode = "bridge"
    container_id = names.new_id()
    if not config.hostname:
        named = os.uname().nodename if host_config.network_mode == "host" else container_id[:12]
        config.hostname = "" if host_config.uts_mode == "host" else named
    if host_config.network_mode in ("bridge", "none"):
        host_config.links = links.check(host_config.links, room.registry)
    points = mounts.plan(config, host_config, lambda ref: room.registry.get(ref).mounts)
    _check_sources(points)
    asked = endpoints(room, host_config, networking)
    argv = imagedefaults.argv(config)
    name = room.registry.free_name(name, container_id)
    shift = 0
    made: list[str] = []
    try:
        shift = id_shift(room, host_config, enabled=user_namespaces)
        make_volumes(room, points, made)
        container = Container(
            id=container_id,
            name=name,
            created=times.rfc3339(times.now()),
            image=image.id,
            path=argv[0],
            args=argv[1:],
            config=config,
            host_config=host_config,
            network_settings=NetworkSettings(networks=asked),
            mounts=points,
            id_shift=shift,
        )
        if host_config.log_config.type != "none":
            container.log_path = str(room.registry.paths(container).log)
        room.registry.add(container)
        try:
            await workingdir.at_creation(room, container)
        except BaseException:
            room.registry.hide(container)
            room.registry.discard(container)
            raise
    except BaseException:
        room.registry.give_up_name(name, container_id)
        room.ranges.give_back(shift)
        for volume in made:
            room.volumes.remove(volume, force=True)
        raise
    room.tell(container, "create")
    return container


def _check_sources(points: list[MountPoint]) -> None:
    """`--mount` makes no folders on the host."""
    for point in points:
        if point.type == "bind" and "create" not in point.options and not os.path.lexists(point.source):
            raise InvalidInput(f'invalid mount config for type "bind": bind source path does not exist: {point.source}')


def id_shift(room: Room, host_config: HostConfig, *, enabled: bool) -> int:
    """Whoever joins another container's namespaces has that container's ids, too."""
    for ref in sharing.joined(host_config):
        return room.registry.get(ref).id_shift
    if not enabled or not sharing.wants_user_namespace(host_config):
        return 0
    return room.ranges.take()


def make_volumes(room: Room, points: list[MountPoint], made: list[str]) -> None:
    for point in points:
        if point.type != "volume" or point.source:
            continue
        known = point.name in room.volumes
        volume = room.volumes.create(
            point.name, driver=point.driver or "local", labels=point.labels, anonymous=point.anonymous
        )
        if not known:
            made.append(volume.name)
        point.name, point.source = volume.name, volume.mountpoint


def endpoints(room: Room, host_config: HostConfig, networking: NetworkingConfig) -> dict[str, EndpointSettings]:
    """Which networks it will be on. The mode names the first; the rest comes from the networking config."""
    mode = host_config.network_mode
    ref = sharing.container_of(mode)
    if ref is not None:
        room.registry.get(ref)
        if host_config.port_bindings or host_config.publish_all_ports:
            raise InvalidInput("conflicting options: port publishing and the container type network mode")
        return {}
    if mode in ("host", "none"):
        if any(other != mode for other in networking.endpoints_config):
            raise InvalidInput(f"conflicting options: the {mode} network and other networks")
        return {mode: networking.endpoints_config.get(mode) or EndpointSettings()}
    first = "bridge" if mode in _DEFAULT_NETWORKS else mode
    try:
        named = room.networks.get(first).name
    except NotFound:
        raise NotFound(f"network {first} not found") from None
    asked: dict[str, EndpointSettings] = {}
    for network, settings in networking.endpoints_config.items():
        asked[room.networks.get(network).name] = settings
    chosen = {named: asked.pop(named, EndpointSettings())} | asked
    for network, settings in chosen.items():
        check_endpoint(network, settings)
    return chosen


def check_endpoint(network: str, settings: EndpointSettings) -> None:
    """Raises InvalidInput for what that network can't give."""
    if network == "bridge" and settings.aliases:
        raise InvalidInput(
            "invalid config for network bridge: network-scoped aliases are only supported for user-defined networks"
        )
    if settings.mac_address:
        parse_mac(settings.mac_address)
    for version, text in (
        (4, settings.ipam_config.ipv4_address if settings.ipam_config else ""),
        (6, settings.ipam_config.ipv6_address if settings.ipam_config else ""),
    ):
        if text:
            parse_address(text, version)


def published(container: Container) -> dict[str, list[PortBinding] | None]:
    """What the ports are while nothing runs: exposed, not published."""
    return dict.fromkeys((*container.config.exposed_ports, *container.host_config.port_bindings))
