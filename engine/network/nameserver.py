"""The address at which a container finds the resolver: 127.0.0.11, as Docker's do.

The sockets are in the container's own network namespace and on ports that nobody asked for, so that a container
may serve names itself, on every address it has. Two rules there change ports on the way: not as network address
translation would, which needs connection tracking, but packet by packet, in 0.1 ms for everything here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.errors import SystemFailure
from engine.network import nft, rules
from engine.network.netlink import NETFILTER, Netlink, NetlinkError, Request
from engine.network.netns import inside, open_netns

ADDRESS = "127.0.0.11"
_TABLE = "shipway_names"
_ATTEMPTS = 16


@dataclass(frozen=True)
class NameSockets:
    """Both on one port of `ADDRESS`; whoever takes them closes them."""

    udp: socket.socket
    tcp: socket.socket

    def close(self) -> None:
        self.udp.close()
        self.tcp.close()


def open_sockets(netns: Path) -> NameSockets:
    """What is sent to `ADDRESS`, port 53, in that namespace comes to these. Its `lo` must be up.

    Raises:
        SystemFailure: the namespace is gone, or the kernel refused.
    """
    namespace = open_netns(netns)
    try:
        return inside(namespace, _open)
    except OSError as error:
        raise SystemFailure(f"no names in network namespace {netns}: {error.strerror}", error.errno) from error
    finally:
        os.close(namespace)


def _open() -> NameSockets:
    for attempt in range(_ATTEMPTS):
        with contextlib.ExitStack() as made:
            udp = made.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC))
            tcp = made.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC))
            udp.bind((ADDRESS, 0))
            port = int(udp.getsockname()[1])
            try:
                tcp.bind((ADDRESS, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE or attempt == _ATTEMPTS - 1:
                    raise
                continue
            tcp.listen(64)
            with Netlink(NETFILTER) as netlink:
                _lead_to(netlink, port)
            made.pop_all()
            return NameSockets(udp, tcp)
    raise AssertionError("the last attempt returns or raises")


def _lead_to(netlink: Netlink, port: int) -> None:
    try:
        netlink.batch(nft.BEGIN, [nft.add_table(_TABLE, new=True), *_rules(port)], nft.END)
    except NetlinkError as error:
        if error.errno != errno.EEXIST:
            raise
        # Left by an earlier life of this engine. To remove it takes the kernel 10 ms: not done unless needed.
        again = [nft.delete_table(_TABLE), nft.add_table(_TABLE), *_rules(port)]
        netlink.batch(nft.BEGIN, again, nft.END)


def _rules(port: int) -> Iterator[Request]:
    yield nft.add_chain(_TABLE, "sent", "filter", nft.OUTPUT, -300)
    for protocol in ("udp", "tcp"):
        asked = rules.daddr(f"{ADDRESS}/32") + rules.protocol(protocol) + rules.dport(53)
        yield nft.add_rule(_TABLE, "sent", asked, rules.set_port(port, protocol, source=False))
        answered = rules.saddr(f"{ADDRESS}/32") + rules.protocol(protocol) + rules.sport(port)
        yield nft.add_rule(_TABLE, "sent", answered, rules.set_port(53, protocol, source=True))
