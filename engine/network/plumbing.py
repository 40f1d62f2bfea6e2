"""The networks' effects on the kernel and the disk.

Everything here blocks, for a millisecond or two, and runs in the one thread that `Networks` keeps for it: it
enters containers' network namespaces, and its order is the order of the requests.
"""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_network

import msgspec

from engine.config import EngineConfig
from engine.errors import Conflict
from engine.network import addresses, bridge, conntrack, ipv6, links, veth
from engine.network.addresses import Subnet
from engine.network.firewall import Firewall, Published, Side
from engine.network.model import Endpoint, Network, PortBinding
from engine.network.netlink import NETFILTER, Netlink, NetlinkError
from engine.network.options import masquerades, mtu_of, neighbours_talk
from engine.network.placing import Surroundings, Wishes, fits, place, wishes_of_default
from engine.network.ports import LOOPBACK6
from engine.network.store import NetworkStore

_log = logging.getLogger(__name__)


class Plumbing:
    """Bridges, veth pairs, rules and records of one engine's networks."""

    def __init__(self, config: EngineConfig, store: NetworkStore) -> None:
        self._config = config
        self._store = store
        self._pools = addresses.parse_pools(config.default_address_pool)
        self._bridges: dict[str, int] = {}
        self._firewall = Firewall(config.nft_table)
        self._opened: Netlink | None = None
        self._conntrack: Netlink | None = None

    # An engine's life

    def load(self, default: Network) -> dict[str, Network]:
        """The networks of an earlier life, and `default` if it is not among them; their bridges are there.

        Raises:
            SystemFailure: no bridges, no nf_tables, or forwarding can't be turned on.
        """
        bridge.enable_forwarding()
        networks = self._store.load()
        self._undo_halves(networks)
        with bridge.subnet_lock():
            present = {link.name for link in links.list_links(self._netlink)}
            known = next((network for network in networks.values() if network.name == default.name), default)
            networks[known.id] = known
            known.options = default.options
            self._place_default(known, [network for network in networks.values() if network is not known], present)
            _keep_ipv6(networks.values())
            for network in networks.values():
                self._make_bridge(network)
        for network in networks.values():
            for endpoint in list(network.endpoints.values()):
                if endpoint.host_interface not in present:
                    del network.endpoints[endpoint.container_id]
                    self._store.forget_endpoint(endpoint)
        self._remove_strangers(networks.values(), present)
        return networks

    def _place_default(self, default: Network, others: Sequence[Network], present: Collection[str]) -> None:
        """Let the default network be as it is configured.

        While nobody is on it, it also makes way for whatever else has come to use its subnet.
        """
        wishes = wishes_of_default(self._config.default_bridge)
        if wishes.ipv6 is not None and not ipv6.available():
            wishes = Wishes(wishes.ipv4)
        around = self._around(others)
        in_the_way = default.bridge not in present and not _free(default.subnet, around.used)
        if not in_the_way and fits(default, wishes):
            return
        if default.endpoints:
            _log.warning("the default network stays on %s while containers are on it", default.subnet)
            return
        bridge.remove(self._netlink, default.bridge)
        default.subnet6 = default.gateway6 = ""
        place(default, wishes, self._around(others), self._config.instance)
        self._store.save(default)

    def rebuild(self, networks: Sequence[Network]) -> None:
        """Replace all rules: those of an earlier life may be of any age."""
        published = [
            one for network in networks for endpoint in network.endpoints.values() for one in _published(endpoint)
        ]
        self._firewall.rebuild(_sides(networks), published)

    def take_down(self, networks: Iterable[Network]) -> None:
        """Remove every rule, bridge and interface of this engine."""
        self._firewall.remove()
        for network in networks:
            bridge.remove(self._netlink, network.bridge)
        self._remove_strangers((), {link.name for link in links.list_links(self._netlink)})

    def close(self) -> None:
        self._firewall.close()
        for opened in (self._opened, self._conntrack):
            if opened is not None:
                opened.close()
        self._opened = self._conntrack = None

    # Networks

    def create(self, network: Network, others: Sequence[Network], wishes: Wishes) -> None:
        """Give `network` its subnets and make its bridge. Raises Conflict or InvalidInput."""
        with bridge.subnet_lock():
            place(network, wishes, self._around(others), self._config.instance)
            if any(link.name == network.bridge for link in links.list_links(self._netlink)):
                raise Conflict(f"an interface called {network.bridge} exists already")
            if network.subnet6:
                ipv6.enable_forwarding()
            try:
                if not self._is_ours(network.bridge):
                    # After a crash its name alone would not tell whose it is.
                    self._store.save(msgspec.structs.replace(network, made=False))
                self._make_bridge(network)
                self._firewall.update_networks(_sides([*others, network]))
                self._store.save(network)
            except BaseException:
                bridge.remove(self._netlink, network.bridge)
                self._store.forget(network)
                raise

    def remove(self, network: Network, others: Sequence[Network]) -> None:
        self._firewall.update_networks(_sides(others))
        bridge.remove(self._netlink, network.bridge)
        self._bridges.pop(network.id, None)
        self._store.forget(network)

    # Endpoints

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
            self._firewall.publish(_published(endpoint))
            self._forget_flows(endpoint.ports)
            self._store.save_endpoint(endpoint)
        except BaseException:
            veth.unplug(self._netlink, endpoint.host_interface)
            with contextlib.suppress(NetlinkError):
                self._firewall.unpublish(_published(endpoint))
            raise

    def publish(self, endpoint: Endpoint) -> None:
        """Publish the ports that the endpoint has been given since it was plugged in."""
        self._netlink.send([links.set_port(endpoint.host_interface, hairpin=True)])
        self._firewall.publish(_published(endpoint))
        self._forget_flows(endpoint.ports)
        self._store.save_endpoint(endpoint)

    def remember(self, endpoint: Endpoint) -> None:
        """Write down what has changed of an endpoint that is there."""
        self._store.save_endpoint(endpoint)

    def withdraw(self, endpoint: Endpoint) -> None:
        """Close the endpoint's ports and forget it; its interface is left to others."""
        self._firewall.unpublish(_published(endpoint))
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

    # Inside

    @property
    def _netlink(self) -> Netlink:
        if self._opened is None:
            self._opened = Netlink()
        return self._opened

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

    def _around(self, others: Sequence[Network]) -> Surroundings:
        own = {ip_network(subnet) for other in others for subnet in _subnets(other)}
        return Surroundings(
            self._pools,
            used=links.used_subnets(self._netlink) | own,
            assigned=links.interface_subnets(self._netlink) | own,
        )

    def _make_bridge(self, network: Network) -> None:
        self._bridges[network.id] = bridge.ensure(self._netlink, network)

    def _remove_strangers(self, networks: Iterable[Network], present: Collection[str]) -> None:
        """Remove interfaces that have a name of this engine and no place in its records."""
        known = {network.bridge for network in networks}
        known |= {one.host_interface for network in networks for one in network.endpoints.values()}
        for name in present:
            if self._is_ours(name) and name not in known:
                veth.unplug(self._netlink, name)

    def _undo_halves(self, networks: dict[str, Network]) -> None:
        """Remove what a crash left of networks that were being made."""
        addresses_of = {link.name: link.mac for link in links.list_links(self._netlink)}
        for network in [one for one in networks.values() if not one.made]:
            if addresses_of.get(network.bridge) == addresses.mac_for(network.gateway):
                bridge.remove(self._netlink, network.bridge)
            self._store.forget(networks.pop(network.id))

    def _is_ours(self, interface: str) -> bool:
        return interface.startswith((self._config.bridge, f"v{self._config.instance}"))


def unplug_now(host_interface: str) -> None:
    """Remove a veth pair from any thread, while `Plumbing` goes on."""
    with Netlink() as netlink:
        veth.unplug(netlink, host_interface)


def _keep_ipv6(networks: Iterable[Network]) -> None:
    """Let IPv6 through where networks have it; where the host has lost it, they go without until it is back."""
    having = [network for network in networks if network.subnet6]
    if having and ipv6.available():
        ipv6.enable_forwarding()
        return
    for network in having:
        _log.warning("network %s: %s", network.name, ipv6.ABSENT)
        network.subnet6 = network.gateway6 = ""


def _free(subnet: str, used: Iterable[Subnet]) -> bool:
    return bool(subnet) and addresses.is_free(ip_network(subnet), used)


def _subnets(network: Network) -> tuple[str, ...]:
    return tuple(subnet for subnet in (network.subnet, network.subnet6) if subnet)


def _sides(networks: Iterable[Network]) -> list[Side]:
    return [
        Side(
            one.bridge,
            _subnets(one),
            icc=neighbours_talk(one.options),
            internal=one.internal,
            masquerade=masquerades(one.options),
        )
        for one in networks
    ]


def _published(endpoint: Endpoint) -> list[Published]:
    return [
        Published.of(binding, endpoint.ip6 if ":" in binding.host_ip else endpoint.ip)
        for binding in endpoint.ports
        if binding.host_ip != LOOPBACK6
    ]


def endpoints_of(networks: Iterable[Network], container_id: str | None = None) -> Iterator[Endpoint]:
    """All endpoints, or one container's, in the order in which they were made."""
    for network in list(networks):
        if container_id is None:
            yield from list(network.endpoints.values())
        elif container_id in network.endpoints:
            yield network.endpoints[container_id]
