"""What a container that is to come needs here: can it be had, and making it."""

from __future__ import annotations

import os
import socket

from engine.containers import creation, imagedefaults, links, plugging, sharing, validation
from engine.containers.model import Container, Move, NetworkingConfig, NetworkSettings, State
from engine.containers.move.offer import NetworkOffer, Offer, machine
from engine.containers.room import Room
from engine.errors import Conflict, InvalidInput, NotFound, SystemFailure
from engine.images import digest as digests
from engine.images import manifest as manifests
from engine.images.config import MAX_CONFIG_BYTES, ImageConfig
from engine.images.manifest import Manifest
from engine.images.reference import Reference
from engine.network.model import PortMapping
from engine.network.placing import Pool, Wishes


def check(room: Room, offer: Offer) -> None:
    """Raises Conflict or InvalidInput for what can be known before anything is sent."""
    if offer.id in room.registry:
        raise Conflict(f"container {offer.id[:12]} is here already")
    validation.check(offer.config, offer.host_config)
    sharing.check(offer.host_config)
    for point in offer.mounts:
        if point.type == "bind" and not os.path.lexists(point.source):
            raise InvalidInput(
                f"the container mounts the host's {point.source}, which is not there: "
                "folders of the host are not moved, copy it first"
            )
    if not offer.use_volumes:
        for volume in offer.volumes:
            if volume.name in room.volumes:
                raise Conflict(
                    f"volume {volume.name} is there already: remove it, or use it as it is with --use-volumes"
                )
    refs = [*sharing.joined(offer.host_config)]
    for ref in refs:
        try:
            room.registry.get(ref)
        except NotFound:
            raise InvalidInput(
                f"the container shares namespaces with {ref}, which is not there: move it first"
            ) from None
    links.check(
        [*offer.host_config.links, *(one for each in offer.endpoints.values() for one in each.links)], room.registry
    )
    _check_ports(room, offer)


def _check_ports(room: Room, offer: Offer) -> None:
    """Ports that are taken now will hardly be free in a minute: unless the container itself has them."""
    if offer.host_config.network_mode in ("host", "none"):
        return
    probe = _as_container(offer)
    for mapping in plugging.port_mappings(probe):
        first, last = mapping.host_port, max(mapping.host_port, mapping.host_port_end)
        if first and all(_taken(room, offer, mapping, port) for port in range(first, last + 1)):
            raise Conflict(f"port {first}/{mapping.protocol} is in use there: stop what has it")


def _taken(room: Room, offer: Offer, mapping: PortMapping, port: int) -> bool:
    for network in room.networks.list():
        for endpoint in network.endpoints.values():
            if any(one.host_port == port and one.protocol == mapping.protocol for one in endpoint.ports):
                return True
    if offer.machine == machine():
        return False
    kind = socket.SOCK_DGRAM if mapping.protocol == "udp" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((mapping.host_ip or "0.0.0.0", port))  # noqa: S104
        except OSError:
            return True
    return False


class Image:
    """The image of an offer. Blocking."""

    def __init__(self, room: Room, offer: Offer) -> None:
        self._store = room.images
        self.id = offer.image.id
        self._config_bytes = offer.image.config.encode()
        self._manifest_bytes = offer.image.manifest.encode()
        self._media_type = offer.image.media_type
        self._tags = offer.image.tags
        if len(self._config_bytes) > MAX_CONFIG_BYTES or digests.sha256(self._config_bytes) != self.id:
            raise InvalidInput(f"the image's config is not that of {self.id}")
        self._config = ImageConfig.decode(self._config_bytes)
        manifest = manifests.parse(self._manifest_bytes, self._media_type)
        if not isinstance(manifest, Manifest) or manifest.config.digest != self.id:
            raise InvalidInput(f"the image's manifest is not that of {self.id}")
        if len(manifest.layers) != len(self._config.chain_ids):
            raise InvalidInput(f"the manifest of {self.id} does not fit its config")
        self._manifest_digest = digests.sha256(self._manifest_bytes)
        self._layers = list(zip(manifest.layers, self._config.rootfs.diff_ids, self._config.chain_ids, strict=True))

    @property
    def targets(self) -> list[str]:
        """All that is to be spared from clean-up."""
        return [
            self.id,
            self._manifest_digest,
            *(layer.digest for layer, _, _ in self._layers),
            *self._config.chain_ids,
        ]

    def lacking(self) -> list[str]:
        """The digests of the layers that are not here, each once, the lowest first."""
        store = self._store
        lacking = [
            layer.digest
            for layer, _, chain in self._layers
            if not store.layers.has(chain) and not store.blobs.has(layer.digest)
        ]
        return list(dict.fromkeys(lacking))

    def absent(self) -> list[str]:
        """What of it is not here: its id, blobs and chains."""
        store = self._store
        absent = [] if store.catalog.image(self.id) is not None else [self.id]
        absent += [] if store.blobs.has(self._manifest_digest) else [self._manifest_digest]
        for layer, _, chain in self._layers:
            absent += [] if store.layers.has(chain) else [chain]
            absent += [] if store.blobs.has(layer.digest) else [layer.digest]
        return list(dict.fromkeys(absent))

    def finish(self) -> None:
        """Unpacks what is not unpacked, and makes it an image with the names that nothing else here has."""
        store = self._store
        parent: str | None = None
        for layer, diff_id, chain in self._layers:
            if not store.layers.has(chain) or store.layer(chain) is None:
                store.import_layer(layer, diff_id, parent)
            parent = chain
        if store.catalog.image(self.id) is None:
            store.blobs.put(self._config_bytes)
            store.register_manifest(None, self._manifest_bytes, self._media_type)
        for tag in map(Reference.parse, self._tags):
            if store.catalog.tagged(str(tag)) is None:
                store.tag(self.id, tag)


async def make_networks(room: Room, offers: list[NetworkOffer], wanted: list[str], addressed: set[str]) -> None:
    """Those of `wanted`. With a fixed address a network keeps its subnet. All or none."""
    try:
        for offer in offers:
            if offer.name in wanted:
                await _make_network(room, offer, keep_subnet=offer.name in addressed)
    except BaseException:
        await remove_networks(room, wanted)
        raise


async def _make_network(room: Room, offer: NetworkOffer, *, keep_subnet: bool) -> None:
    try:
        await _create_network(room, offer, keep=True)
    except (Conflict, InvalidInput):
        if keep_subnet:
            raise
        # The host has other networks: names stay, addresses are what fits here.
        await _create_network(room, offer, keep=False)


async def _create_network(room: Room, offer: NetworkOffer, *, keep: bool) -> None:
    ipv4 = Pool(offer.subnet, offer.gateway, offer.ip_range) if keep else Pool()
    ipv6 = Pool(offer.subnet6, offer.gateway6, offer.ip_range6) if keep else Pool()
    network = await room.networks.create(
        offer.name,
        wishes=Wishes(ipv4, ipv6 if offer.subnet6 else None),
        internal=offer.internal,
        attachable=offer.attachable,
        labels=offer.labels,
        driver_options=offer.options,
        ipam_options=offer.ipam_options,
    )
    room.events.publish("network", "create", network.id, {"name": network.name, "type": network.driver})


def lacking_networks(room: Room, offer: Offer) -> list[str]:
    """The names of those that are not here."""
    here = {network.name for network in room.networks.list()}
    return [network.name for network in offer.networks if network.name not in here]


def lacking_volumes(room: Room, offer: Offer) -> list[str]:
    """The names of those that are not here."""
    return [volume.name for volume in offer.volumes if volume.name not in room.volumes]


async def remove_networks(room: Room, names: list[str]) -> None:
    """Unless somebody uses them by now."""
    for name in names:
        if any(name in container.network_settings.networks for container in room.registry):
            continue
        try:
            network = await room.networks.remove(name)
        except (NotFound, InvalidInput, Conflict, SystemFailure):
            continue
        room.events.publish("network", "destroy", network.id, {"name": network.name, "type": network.driver})


def make(room: Room, offer: Offer, move: Move, *, user_namespaces: bool) -> Container:
    """The record, the folders and the volumes that `move` names; its name is taken already. All or nothing."""
    container = _as_container(offer)
    container.id_shift = creation.id_shift(room, offer.host_config, enabled=user_namespaces)
    made: list[str] = []
    try:
        anonymous = {point.name for point in offer.mounts if point.anonymous}
        for volume in offer.volumes:
            if volume.name in move.volumes:
                made.append(volume.name)
                room.volumes.create(volume.name, labels=volume.labels, anonymous=volume.name in anonymous)
        creation.make_volumes(room, container.mounts, made)
        wish = NetworkingConfig(endpoints_config=offer.endpoints)
        container.network_settings = NetworkSettings(networks=creation.endpoints(room, offer.host_config, wish))
        container.move = move
        if offer.host_config.log_config.type != "none":
            container.log_path = str(room.registry.paths(container).log)
        room.registry.add(container)
    except BaseException:
        room.ranges.give_back(container.id_shift)
        for name in made:
            room.volumes.remove(name, force=True)
        raise
    return container


def _as_container(offer: Offer) -> Container:
    argv = imagedefaults.argv(offer.config)
    if not argv:
        raise InvalidInput("no command specified")
    return Container(
        id=offer.id,
        name=offer.name,
        created=offer.created,
        image=offer.image.id,
        path=argv[0],
        args=argv[1:],
        config=offer.config,
        host_config=offer.host_config,
        state=State(),
        mounts=offer.mounts,
        stopped_by_user=offer.stopped_by_user,
    )
