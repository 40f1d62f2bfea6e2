"""What one engine tells the other of a container that is to move there."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct, field

from engine.containers import sharing
from engine.containers.hostconfig import HostConfig
from engine.containers.model import Container, ContainerConfig, EndpointSettings, MountPoint
from engine.containers.room import Room
from engine.errors import NotFound
from engine.images.config import MAX_CONFIG_BYTES

FILES, LOGS, VOLUME = "files", "logs", "volume."
"""Names of trees: the container's own files, its logs, and each volume with its name."""

_INTERFACE = "com.docker.network.bridge.name"
"""A network's option that names an interface of this very host."""


class ImageOffer(Struct, rename="pascal", kw_only=True):
    """`config` and `manifest` as they are, byte for byte: the image's id is the config's digest."""

    id: str
    config: str
    manifest: str
    media_type: str
    tags: list[str] = []


class NetworkOffer(Struct, rename="pascal", kw_only=True):
    """A network that the container is on, should there be none of its name."""

    name: str
    subnet: str = ""
    gateway: str = ""
    ip_range: str = ""
    subnet6: str = ""
    gateway6: str = ""
    ip_range6: str = ""
    internal: bool = False
    attachable: bool = False
    labels: dict[str, str] = {}
    options: dict[str, str] = {}
    ipam_options: dict[str, str] | None = None


class VolumeOffer(Struct, rename="pascal", kw_only=True):
    """`fresh`: no container has mounted it yet."""

    name: str
    labels: dict[str, str] = {}
    fresh: bool = False


class Offer(Struct, rename="pascal", kw_only=True):
    """`move` is chosen by the sender, `id` the container's on both engines, `machine` the sender's boot: where it is
    the receiver's own, host ports that are in use may be the container's. With `use_volumes` those that are there
    already are taken as they are."""

    move: str
    id: str
    name: str
    created: str
    config: ContainerConfig
    host_config: HostConfig
    mounts: list[MountPoint] = []
    endpoints: dict[str, EndpointSettings] = {}
    image: ImageOffer
    networks: list[NetworkOffer] = []
    volumes: list[VolumeOffer] = []
    machine: str = ""
    use_volumes: bool = False
    stopped_by_user: bool = False


class Answer(Struct, rename="pascal", kw_only=True):
    """`blobs` are the layers that the receiver lacks, `volumes` those that it has and that stay as they are."""

    blobs: list[str] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)


def machine() -> str:
    """This machine, since it was started."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def of(room: Room, container: Container, *, move: str, container_id: str, use_volumes: bool) -> Offer:
    """Everything but the files. Blocking: layers that are only folders are packed. Raises NotFound."""
    image = room.images.get(container.image)
    manifest, described = room.images.manifest_of(image)
    config = room.images.blobs.read(image.id, MAX_CONFIG_BYTES)
    return Offer(
        move=move,
        id=container_id,
        name=container.name,
        created=container.created,
        config=container.config,
        host_config=container.host_config,
        mounts=[_point(point) for point in container.mounts],
        endpoints={name: _wish(endpoint) for name, endpoint in container.network_settings.networks.items()},
        image=ImageOffer(
            id=image.id,
            config=config.decode(),
            manifest=manifest.decode(),
            media_type=described.media_type,
            tags=list(image.tags),
        ),
        networks=_networks(room, container),
        volumes=[_volume(room, name) for name in volume_names(container)],
        machine=machine(),
        use_volumes=use_volumes,
        stopped_by_user=container.stopped_by_user,
    )


def volume_names(container: Container) -> list[str]:
    """Each once, whether mounted at one place or at two."""
    return list(dict.fromkeys(point.name for point in container.mounts if point.type == "volume"))


def _point(point: MountPoint) -> MountPoint:
    """Where a volume's files are is the other engine's business."""
    return msgspec.structs.replace(point, source="") if point.type == "volume" else point


def _wish(endpoint: EndpointSettings) -> EndpointSettings:
    """What was asked for, without what it got."""
    return EndpointSettings(
        ipam_config=endpoint.ipam_config,
        links=endpoint.links,
        aliases=endpoint.aliases,
        mac_address=endpoint.desired_mac,
        driver_opts=endpoint.driver_opts,
    )


def _networks(room: Room, container: Container) -> list[NetworkOffer]:
    if sharing.container_of(container.host_config.network_mode) is not None:
        return []
    found = [room.networks.get(name) for name in container.network_settings.networks]
    return [
        NetworkOffer(
            name=network.name,
            subnet=network.subnet,
            gateway=network.gateway,
            ip_range=network.ip_range,
            subnet6=network.subnet6,
            gateway6=network.gateway6,
            ip_range6=network.ip_range6,
            internal=network.internal,
            attachable=network.attachable,
            labels=network.labels,
            options={key: value for key, value in network.options.items() if key != _INTERFACE},
            ipam_options=network.ipam_options,
        )
        for network in found
        if not network.predefined
    ]


def _volume(room: Room, name: str) -> VolumeOffer:
    try:
        volume = room.volumes.get(name)
    except NotFound:
        raise NotFound(f"volume {name} of the container is gone: nothing can be moved without it") from None
    return VolumeOffer(name=name, labels=volume.labels, fresh=volume.fresh)
