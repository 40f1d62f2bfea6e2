"""The endpoints' effects on the kernel and the disk.

Everything here blocks, for a millisecond or two, and runs in the one thread that `Networks` keeps for it: it
enters containers' network namespaces, and its order is the order of the requests.
"""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from engine.config import EngineConfig
from engine.network import conntrack, links, veth
from engine.network.firewall import published_by
from engine.network.groundwork import Groundwork
from engine.network.model import Endpoint, Network, PortBinding
from engine.network.netlink import NETFILTER, Netlink, NetlinkError
from engine.network.options import mtu_of, neighbours_talk
from engine.network.store import NetworkStore

_log = logging.getLogger(__name__)


class Plumbing(Groundwork):
    """Veth pairs, published ports and records of one engine's endpoints, on the ground of its networks."""

    def __init__(self, config: EngineConfig, store: NetworkStore) -> None:
        super().__init__(config, store)
        self._conntrack: Netlink | None = None

    def close(self) -> None:
        if self._conntrack is not None:
            self._conntrack.close()
            self._conntrack = None
        super().close()

    def attach(self, network: Network, endpoint: Endpoint, *, default_route: bool, default_route6: bool) -> None:
        """Plug a container in and publish its ports. Nothing is left of an attempt that fails."""
        how = veth.Plug(
            bridge=self._bridges[network.id],
            isolated=not neighbours_talk(network.options),
            default_route=default_route,
            default_route6=default_route6,
            mtu=mtu_of(network.options),
        )
        veth.plug(self._netlink, endpoint, how)
        try:
            self._firewall.publish(published_by(endpoint))
            self._forget_flows(endpoint.ports)
            self._store.save_endpoint(endpoint)
        except BaseException:
            veth.unplug(self._netlink, endpoint.host_interface)
            with contextlib.suppress(NetlinkError):
                self._firewall.unpublish(published_by(endpoint))
            raise

    def publish(self, endpoint: Endpoint) -> None:
        """Publish the ports that the endpoint has been given since it was plugged in: all of them, or none."""
        self._netlink.send([links.set_port(endpoint.host_interface, hairpin=True)])
        try:
            self._firewall.publish(published_by(endpoint))
            self._forget_flows(endpoint.ports)
            self._store.save_endpoint(endpoint)
        except BaseException:
            with contextlib.suppress(NetlinkError):
                self._firewall.unpublish(published_by(endpoint))
            raise

    def unpublish(self, endpoint: Endpoint) -> None:
        """Close the endpoint's ports; it stays."""
        self._firewall.unpublish(published_by(endpoint))
        self._forget_flows(endpoint.ports)
        self._store.save_endpoint(msgspec.structs.replace(endpoint, ports=[]))

    def remember(self, endpoint: Endpoint) -> None:
        """Write down what has changed of an endpoint that is there."""
        self._store.save_endpoint(endpoint)

    def withdraw(self, endpoint: Endpoint) -> None:
        """Close the endpoint's ports and forget it; its interface is left to others."""
        self._firewall.unpublish(published_by(endpoint))
        self._forget_flows(endpoint.ports)
        self._store.forget_endpoint(endpoint)

    def strays(self, alive: Mapping[str, Endpoint]) -> list[str]:
        """This engine's veth interfaces that are no endpoint's (`alive` by interface)."""
        mine = f"v{self._config.instance}"
        return [
            link.name
            for link in links.list_links(self._netlink)
            if link.name.startswith(mine) and link.name not in alive
        ]

    def _forget_flows(self, bindings: Iterable[PortBinding]) -> None:
        ports = {binding.host_port for binding in bindings if binding.protocol == "udp"}
        if not ports:
            return
        if self._conntrack is None:
            self._conntrack = Netlink(NETFILTER)
        try:
            conntrack.forget_udp(self._conntrack, ports)
        except NetlinkError as error:
            if error.errno not in {errno.ENOENT, errno.EINVAL}:
                _log.warning("old UDP flows may live on: %s", error)


def unplug_now(host_interface: str) -> None:
    """Remove a veth pair from any thread, while `Plumbing` goes on."""
    with Netlink() as netlink:
        veth.unplug(netlink, host_interface)


def endpoints_of(networks: Iterable[Network], container_id: str | None = None) -> Iterator[Endpoint]:
    """All endpoints, or one container's, in the order in which they were made."""
    for network in list(networks):
        if container_id is None:
            yield from list(network.endpoints.values())
        elif container_id in network.endpoints:
            yield network.endpoints[container_id]
