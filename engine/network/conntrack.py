"""Forgetting UDP flows of a port that has been published or withdrawn.

The kernel decides where a flow goes by its first packet. A client that keeps sending to the same UDP port
would go on reaching what was, or was not, behind it before.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Collection

from engine.network.netlink import Netlink, NetlinkError, attributes

_SUBSYSTEM = 1
_GET, _DELETE = 1, 2
_TUPLE_ORIGINAL = 1
_FAMILIES = (socket.AF_INET, socket.AF_INET6)


def _ports_and_protocol(original: bytes) -> tuple[int, int]:
    """The transport protocol and destination port of an encoded tuple."""
    protocol = dict(attributes(dict(attributes(original)).get(2, b"")))
    port = struct.unpack(">H", protocol[3][:2])[0] if 3 in protocol else 0
    return protocol.get(1, b"\0")[0], port


def forget_udp(netlink: Netlink, ports: Collection[int]) -> int:
    """Delete every tracked UDP flow whose first packet went to one of `ports`; returns how many.

    `netlink` is an nfnetlink socket that stays open: to close one may take the kernel 10 ms.
    """
    forgotten = 0
    for header in (struct.pack(">BBH", family, 0, 0) for family in _FAMILIES):
        for _, payload in netlink.dump(_SUBSYSTEM << 8 | _GET, header):
            original = dict(attributes(payload[4:])).get(_TUPLE_ORIGINAL, b"")
            protocol, port = _ports_and_protocol(original)
            if protocol == socket.IPPROTO_UDP and port in ports:
                body = header + struct.pack("=HH", 4 + len(original), 0x8000 | _TUPLE_ORIGINAL) + original
                with contextlib.suppress(NetlinkError):  # it ended by itself
                    netlink.send([(_SUBSYSTEM << 8 | _DELETE, 0, body)])
                    forgotten += 1
    return forgotten
