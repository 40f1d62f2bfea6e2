"""The ground that networks stand on: bridges, rules and records, made, reclaimed and taken away.

Everything here blocks, for a millisecond or two, and runs in the one thread that `Networks` keeps for it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from ipaddress import ip_network

import msgspec

from engine.config import EngineConfig
from engine.errors import Conflict
from engine.network import addresses, bridge, ipv6, links, veth
from engine.network.addresses import Subnet
from engine.network.firewall import Firewall, Side, published_by
from engine.network.model import Network
from engine.network.netlink import Netlink
from engine.network.options import masquerades, neighbours_talk
from engine.network.placing import Surroundings, Wishes, fits, place, wishes_of_default
from engine.network.store import NetworkStore

_log = logging.getLogger(__name__)


class Groundwork:
    """Bridges, rules and records of one engine's networks."""

    def __init__(self, config: EngineConfig, store: NetworkStore) -> None:
        self._config = config
        self._store = store
        self._pools = addresses.parse_pools(config.default_address_pool)
        self._bridges: dict[str, int] = {}
        self._firewall = Firewall(config.nft_table)
        self._opened: Netlink | None = None

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
        wishes = _possible(wishes_of_default(self._config.default_bridge))
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
            one for network in networks for endpoint in network.endpoints.values() for one in published_by(endpoint)
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
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def create(self, network: Network, others: Sequence[Network], wishes: Wishes) -> None:
        """Give `network` its subnets and make its bridge; where the host has no IPv6 it has none either.

        Raises Conflict or InvalidInput.
        """
        with bridge.subnet_lock():
            place(network, _possible(wishes), self._around(others), self._config.instance)
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

    @property
    def _netlink(self) -> Netlink:
        if self._opened is None:
            self._opened = Netlink()
        return self._opened

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


def _possible(wishes: Wishes) -> Wishes:
    """What of them this host can fulfil."""
    return wishes if wishes.ipv6 is None or ipv6.available() else Wishes(wishes.ipv4)


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
