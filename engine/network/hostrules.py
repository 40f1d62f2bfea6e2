"""What other programs' rules do with packets that are forwarded: read, never changed."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.network import nft
from engine.network.netlink import NETFILTER, Netlink, attributes

_GETCHAIN, _GETRULE = nft.SUBSYSTEM << 8 | 4, nft.SUBSYSTEM << 8 | 7
_ALL = struct.pack(">BBH", 0, 0, 0)
_FAMILIES = {1: "inet", 2: "ip", 10: "ip6"}


@dataclass(frozen=True)
class Wall:
    """A chain through which nothing is forwarded that one of its rules does not let pass."""

    family: str
    table: str
    chain: str
    chains: frozenset[str]

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.chain}"

    def opened_for(self, bridges: str) -> list[str]:
        """The commands that let through what comes from, or goes to, interfaces that begin with `bridges`."""
        if self.table == "filter" and self.chain == "FORWARD" and self.family != "inet":
            command = "iptables" if self.family == "ip" else "ip6tables"
            chain = "DOCKER-USER" if "DOCKER-USER" in self.chains else "FORWARD"
            return [f"{command} -I {chain} {way} {bridges}+ -j ACCEPT" for way in ("-i", "-o")]
        rule = f"nft insert rule {self.family} {self.table} {self.chain}"
        return [f"{rule} {way} '\"{bridges}*\"' accept" for way in ("iifname", "oifname")]


def has_legacy() -> bool:
    """Whether there are rules of the kernel's older packet filter, which nf_tables does not show."""
    try:
        return "filter" in Path("/proc/net/ip_tables_names").read_text().split()
    except OSError:
        return False


def walls(bridges: str, own_table: str) -> list[Wall]:
    """Chains of others that drop by default and name no interface that begins with `bridges`.

    Raises NetlinkError (EPERM) for who may not see rules.
    """
    with Netlink(NETFILTER) as netlink:
        chains = netlink.dump(_GETCHAIN, _ALL)
        rules = netlink.dump(_GETRULE, _ALL)
    return list(_walls(chains, rules, bridges, own_table))


def _walls(
    chains: list[tuple[int, bytes]], rules: list[tuple[int, bytes]], bridges: str, own_table: str
) -> Iterator[Wall]:
    there: dict[tuple[int, str], set[str]] = {}
    closed: list[tuple[int, str, str]] = []
    told: dict[tuple[int, str], bytes] = {}
    last: dict[tuple[int, str, str], bytes] = {}
    for _, payload in rules:
        found = dict(attributes(payload[4:]))
        place = (payload[0], _text(found.get(1, b"")))
        told[place] = told.get(place, b"") + found.get(4, b"")
        last[*place, _text(found.get(2, b""))] = found.get(4, b"")
    for _, payload in chains:
        found = dict(attributes(payload[4:]))
        family, table, chain = payload[0], _text(found.get(1, b"")), _text(found.get(3, b""))
        there.setdefault((family, table), set()).add(chain)
        hook = dict(attributes(found.get(4, b""))).get(1)
        if family not in _FAMILIES or table == own_table or hook != struct.pack(">I", nft.FORWARD):
            continue
        if found.get(5) == struct.pack(">I", nft.DROP) or _refuses_all(last.get((family, table, chain), b"")):
            closed.append((family, table, chain))
    for family, table, chain in closed:
        if bridges.encode() not in told.get((family, table), b""):
            yield Wall(_FAMILIES[family], table, chain, frozenset(there[family, table]))


def _refuses_all(expressions: bytes) -> bool:
    """Whether a rule, without any condition, drops or rejects."""
    names = []
    for _, element in attributes(expressions):
        parts = dict(attributes(element))
        name = _text(parts.get(1, b""))
        if name == "immediate":
            verdict = dict(attributes(dict(attributes(dict(attributes(parts.get(2, b""))).get(2, b""))).get(2, b"")))
            name = "drop" if verdict.get(1) == struct.pack(">I", nft.DROP) else "other"
        names.append(name)
    return bool(names) and names[-1] in {"drop", "reject"} and set(names[:-1]) <= {"counter", "log"}


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")
