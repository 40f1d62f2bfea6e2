"""The traffic switch in the kernel: one nftables table, changed in one transaction.

A published port is a key of the map `ports`, and its chain `port_<n>` sends each new connection to the next
replica (numgen). Replacing that chain's rule is a single netlink batch: a packet sees the old rule or the new
one. Connections that exist are not looked up again, conntrack remembers their replica.

Reached from outside (prerouting), from this host, its loopback address included (output), and from containers
beside the replicas (prerouting too; their answers must come back through the host, so those are masqueraded).
Needs IPv4 and TCP only; the port itself is not bound.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from deploy.traffic.base import Backend, Route, TrafficError

DEFAULT_TABLE = "shipway_traffic"

_SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    # Packets from 127.0.0.1 may leave for a replica; the guard chain keeps them from coming in.
    "net/ipv4/conf/all/route_localnet": "1",
}


@dataclass(frozen=True)
class NftTraffic:
    """Implements `Traffic`. Several on one host need a table each; `command` is how nft is run."""

    table: str = DEFAULT_TABLE
    command: Sequence[str] = ("nft",)
    proc_sys: Path = Path("/proc/sys")

    def switch(self, route: Route) -> None:
        """See Traffic. Raises TrafficError."""
        script = [*self._skeleton(), *self._forget(self._stale(route)), *self._lead(route)]
        self._enable_forwarding()
        self._transaction(script)

    def remove(self, service: str) -> None:
        """See Traffic. Raises TrafficError."""
        ports = [route.port for route in self.routes() if route.service == service]
        if ports:
            self._transaction([*self._skeleton(), *self._forget(ports)])

    def routes(self) -> list[Route]:
        """See Traffic. Subnets are not read back. Raises TrafficError."""
        listing = self._run("-j", "list", "ruleset", "ip")
        return sorted(_routes_of(json.loads(listing), self.table), key=lambda route: route.port)

    def clear(self) -> None:
        """See Traffic. Connections that are established lose their way. Raises TrafficError."""
        self._transaction([f"add table ip {self.table}", f"delete table ip {self.table}"])

    def _stale(self, route: Route) -> list[int]:
        return [old.port for old in self.routes() if old.service == route.service and old.port != route.port]

    def _skeleton(self) -> list[str]:
        """Everything that does not depend on routes, said again each time: a lost piece heals itself."""
        table = self.table
        lead = "fib daddr type local tcp dport vmap @ports"
        chains = {
            "guard": ("filter", "prerouting", -300, ['iifname != "lo" ip daddr 127.0.0.0/8 drop']),
            "incoming": ("nat", "prerouting", -100, [lead]),
            # nft 1.0.6 refuses the name dstnat on this hook.
            "local": ("nat", "output", -100, [lead]),
            "back": (
                "nat",
                "postrouting",
                100,
                [
                    'oifname != "lo" ip saddr 127.0.0.0/8 ct status dnat masquerade',
                    "ct status dnat ip saddr . ip daddr @hairpin masquerade",
                ],
            ),
        }
        script = [
            f"add table ip {table}",
            f"add map ip {table} ports {{ type inet_service : verdict; }}",
            f"add set ip {table} hairpin {{ type ipv4_addr . ipv4_addr; flags interval; }}",
        ]
        for name, (kind, hook, priority, rules) in chains.items():
            base = f"type {kind} hook {hook} priority {priority}; policy accept;"
            script.append(f"add chain ip {table} {name} {{ {base} }}")
            script.append(f"flush chain ip {table} {name}")
            script += [f"add rule ip {table} {name} {rule}" for rule in rules]
        return script

    def _lead(self, route: Route) -> Iterator[str]:
        chain = _chain(route.port)
        yield f"add chain ip {self.table} {chain}"
        yield f"flush chain ip {self.table} {chain}"
        lead = _dnat(route.backends) if route.backends else "return"
        yield f"add rule ip {self.table} {chain} meta l4proto tcp {lead} comment {_comment(route.service)}"
        if len(route.backends) > 1:
            # A packet that is in the old rule at the very moment of a switch finds that rule's map already
            # emptied: it must not fall through to this host's own port, where nobody listens.
            yield f"add rule ip {self.table} {chain} meta l4proto tcp {_dnat(route.backends[:1])}"
        yield f"add element ip {self.table} ports {{ {route.port} : jump {chain} }}"
        for network in sorted({str(IPv4Network(b.network)) for b in route.backends if b.network}):
            yield f"add element ip {self.table} hairpin {{ {network} . {network} }}"

    def _forget(self, ports: Iterable[int]) -> Iterator[str]:
        for port in ports:
            chain = _chain(port)
            yield f"delete element ip {self.table} ports {{ {port} : jump {chain} }}"
            yield f"flush chain ip {self.table} {chain}"
            yield f"delete chain ip {self.table} {chain}"

    def _enable_forwarding(self) -> None:
        for name, wanted in _SYSCTLS.items():
            path = self.proc_sys / name
            try:
                if path.read_text().strip() != wanted:
                    path.write_text(wanted)
            except OSError as error:
                setting = name.replace("/", ".")
                raise TrafficError(f"{setting} can't be set to {wanted}: {error.strerror}") from error

    def _transaction(self, script: Iterable[str]) -> None:
        self._run("-f", "-", script="\n".join(script) + "\n")

    def _run(self, *arguments: str, script: str | None = None) -> str:
        try:
            done = subprocess.run([*self.command, *arguments], input=script, capture_output=True, text=True, timeout=30)
        except FileNotFoundError:
            raise TrafficError("nft is not installed: install the package nftables") from None
        except subprocess.TimeoutExpired:
            raise TrafficError("nft did not answer within 30 s") from None
        if done.returncode:
            raise TrafficError(f"nft: {_first_error(done.stderr)}")
        return done.stdout


def _chain(port: int) -> str:
    return f"port_{port}"


def _dnat(backends: Sequence[Backend]) -> str:
    targets = [f"{IPv4Address(backend.address)} . {backend.port:d}" for backend in backends]
    if len(targets) == 1:
        return f"dnat ip to {targets[0].replace(' . ', ':')}"
    pairs = ", ".join(f"{index} : {target}" for index, target in enumerate(targets))
    return f"dnat ip addr . port to numgen inc mod {len(targets)} map {{ {pairs} }}"


def _comment(service: str) -> str:
    if '"' in service or len(service) > 64:
        raise TrafficError(f"{service!r} can't be a service's name")
    return f'"{service}"'


def _first_error(text: str) -> str:
    lines = text.strip().splitlines()
    found = next((line for line in lines if "rror" in line), lines[0] if lines else "failed and said nothing")
    if "ermitted" in found:
        return f"{found.strip()}: traffic is switched by root only"
    return found.strip()


def _routes_of(listing: dict[str, Any], table: str) -> Iterator[Route]:
    for item in listing.get("nftables", ()):
        rule = item.get("rule")
        if rule is None or rule["table"] != table or not rule["chain"].startswith("port_"):
            continue
        if "comment" not in rule:
            continue  # the second rule of a chain, which only stands in for the first
        port = int(rule["chain"].removeprefix("port_"))
        leads = [statement["dnat"] for statement in rule["expr"] if "dnat" in statement]
        yield Route(rule["comment"], port, tuple(b for lead in leads for b in _backends_of(lead)))


def _backends_of(dnat: dict[str, Any]) -> Iterator[Backend]:
    address = dnat["addr"]
    if isinstance(address, str):
        yield Backend(address, int(dnat["port"]))
        return
    for _, target in address["map"]["data"]["set"]:
        replica, port = target["concat"]
        yield Backend(replica, int(port))
