"""The engine's one table of rules: published ports, egress, and walls between networks.

Published ports are entries of maps, so that publishing is one small transaction however many there are.
The rules themselves follow from the list of networks; `rebuild` replaces the whole table in one transaction,
no packet sees half of it, and nobody else's table is touched.

A verdict of ours can't undo another table's drop: where a host forbids forwarding by its own rules, those
rules have to let the bridges through.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from engine.network import nft, rules
from engine.network.model import LOOPBACK6, Endpoint, PortBinding
from engine.network.netlink import NETFILTER, Netlink, NetlinkError, Request

_MAPS = (nft.ADDRESSED, nft.ANYWHERE, nft.ADDRESSED6, nft.ANYWHERE6)
"""What is published on one address goes before what is published on all."""

_CHUNK = 256
_LOOPBACK = "127.0.0.0/8"
_EVERYWHERE = {"0.0.0.0": nft.ANYWHERE, "::": nft.ANYWHERE6}  # noqa: S104

_Make = Callable[[str, str, Sequence[tuple[bytes, bytes]]], Request]


@dataclass(frozen=True)
class Side:
    """What the rules need to know about one network."""

    bridge: str
    subnets: tuple[str, ...]
    icc: bool = True
    internal: bool = False
    masquerade: bool = True


@dataclass(frozen=True)
class Published:
    """A port of the host that leads to `target`, port `target_port`."""

    host_ip: str
    host_port: int
    protocol: str
    target: str
    target_port: int

    @classmethod
    def of(cls, binding: PortBinding, target: str) -> Published:
        return cls(binding.host_ip, binding.host_port, binding.protocol, target, binding.container_port)

    @property
    def entry(self) -> tuple[nft.Map, bytes, bytes]:
        """The map it belongs in, its key and its value."""
        key = nft.pack_protocol(self.protocol) + nft.pack_port(self.host_port)
        value = nft.pack_address(self.target) + nft.pack_port(self.target_port)
        everywhere = _EVERYWHERE.get(self.host_ip)
        if everywhere is not None:
            return everywhere, key, value
        address = nft.pack_address(self.host_ip)
        return (nft.ADDRESSED if len(address) == 4 else nft.ADDRESSED6), address + key, value


def published_by(endpoint: Endpoint) -> list[Published]:
    """What rules lead to the endpoint; what comes to `::1` is carried instead, see `relay`."""
    return [
        Published.of(binding, endpoint.ip6 if ":" in binding.host_ip else endpoint.ip)
        for binding in endpoint.ports
        if binding.host_ip != LOOPBACK6
    ]


class Firewall:
    """Keeps the table `table`. Methods block for a fraction of a millisecond; one thread at a time."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._netlink: Netlink | None = None

    def rebuild(self, sides: Sequence[Side], published: Iterable[Published]) -> None:
        """Replace the whole table, atomically."""
        table = self._table
        requests = [nft.add_table(table), nft.delete_table(table), nft.add_table(table)]
        requests += [
            *(nft.add_map(table, one) for one in _MAPS),
            nft.add_chain(table, "guard", "filter", nft.PREROUTING, -300),
            nft.add_chain(table, "arriving", "nat", nft.PREROUTING, -100),
            nft.add_chain(table, "local", "nat", nft.OUTPUT, -100),
            nft.add_chain(table, "forward", "filter", nft.FORWARD, 0),
            nft.add_chain(table, "leaving", "nat", nft.POSTROUTING, 100),
        ]
        requests += self._published_rules()
        requests += self._rules(sides)
        requests += self._entries(nft.add_elements, published)
        self._commit(requests)

    def update_networks(self, sides: Sequence[Side]) -> None:
        """Replace the rules that follow from the networks, and leave published ports as they are."""
        flush = [nft.flush_chain(self._table, chain) for chain in ("guard", "forward", "leaving")]
        self._commit([*flush, *self._rules(sides)])

    def publish(self, published: Sequence[Published]) -> None:
        """Open ports: all of them, or none."""
        if published:
            self._commit(list(self._entries(nft.add_elements, published)))

    def unpublish(self, published: Sequence[Published]) -> None:
        """Close ports. Those that are closed already are no error."""
        if not published:
            return
        try:
            self._commit(list(self._entries(nft.delete_elements, published)))
        except NetlinkError as error:
            if error.errno != errno.ENOENT:
                raise
            for one in published:
                self._ignore_missing(list(self._entries(nft.delete_elements, [one])))

    def remove(self) -> None:
        """Remove the table with everything in it."""
        self._ignore_missing([nft.delete_table(self._table)])

    def close(self) -> None:
        if self._netlink is not None:
            self._netlink.close()
            self._netlink = None

    def _commit(self, requests: Sequence[Request]) -> None:
        if self._netlink is None:
            self._netlink = Netlink(NETFILTER)
        self._netlink.batch(nft.BEGIN, requests, nft.END)

    def _ignore_missing(self, requests: Sequence[Request]) -> None:
        try:
            self._commit(requests)
        except NetlinkError as error:
            if error.errno != errno.ENOENT:
                raise

    def _entries(self, make: _Make, published: Iterable[Published]) -> Iterator[Request]:
        entries: dict[nft.Map, list[tuple[bytes, bytes]]] = {}
        for one in published:
            where, key, value = one.entry
            entries.setdefault(where, []).append((key, value))
        for where, found in entries.items():
            for start in range(0, len(found), _CHUNK):
                yield make(self._table, where.name, found[start : start + _CHUNK])

    def _published_rules(self) -> Iterator[Request]:
        # A neighbour may send packets for 127.0.0.1 here. Redirected before routing they would reach ports
        # that are published for this host alone; left as they are, the kernel drops them as martians.
        yield nft.add_rule(self._table, "arriving", rules.daddr(_LOOPBACK), rules.verdict(nft.RETURN))
        # The kernel takes no answer for ::1 from anywhere but lo: those connections are carried, see `relay`.
        yield nft.add_rule(self._table, "local", rules.daddr(f"{LOOPBACK6}/128"), rules.verdict(nft.RETURN))
        for chain in ("arriving", "local"):
            for where in _MAPS:
                local = rules.daddr_is_local() if where in _EVERYWHERE.values() else b""
                yield nft.add_rule(self._table, chain, local, rules.dnat_by(where))

    def _rules(self, sides: Sequence[Side]) -> Iterator[Request]:
        table = self._table
        established = rules.ct_state(rules.STATE_ESTABLISHED | rules.STATE_RELATED)
        yield nft.add_rule(table, "forward", established, rules.verdict(nft.ACCEPT))
        for side in sides:
            into, out_of = rules.oifname(side.bridge), rules.iifname(side.bridge)
            from_outside = into + rules.iifname(side.bridge, equal=False)
            # route_localnet on the bridge lets 127.0.0.1 lead to containers; it must not lead back.
            yield nft.add_rule(table, "guard", out_of, rules.daddr(_LOOPBACK), rules.verdict(nft.DROP))
            if side.internal:
                to_outside = out_of + rules.oifname(side.bridge, equal=False)
                yield nft.add_rule(table, "forward", to_outside, rules.verdict(nft.DROP))
                yield nft.add_rule(table, "forward", from_outside, rules.verdict(nft.DROP))
                continue
            not_published = rules.ct_status(rules.STATUS_DNAT, present=False)
            yield nft.add_rule(table, "forward", from_outside, not_published, rules.verdict(nft.DROP))
            if not side.icc:
                # Ports of the bridge are isolated from each other; this is the way round by the gateway.
                yield nft.add_rule(table, "forward", into, out_of, not_published, rules.verdict(nft.DROP))
            yield nft.add_rule(table, "leaving", into, rules.saddr(_LOOPBACK), rules.masquerade())
            for subnet in side.subnets:
                # A container that reaches its neighbour through a published port must hear the answer from there.
                hairpin = into + rules.saddr(subnet) + rules.ct_status(rules.STATUS_DNAT)
                yield nft.add_rule(table, "leaving", hairpin, rules.masquerade())
                if side.masquerade:
                    egress = rules.saddr(subnet) + rules.oifname(side.bridge, equal=False)
                    yield nft.add_rule(table, "leaving", egress, rules.masquerade())
