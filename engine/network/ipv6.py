"""IPv6 on this host: whether there is any, and letting it through."""

from __future__ import annotations

import socket

from engine.network import sysctl

ABSENT = "this host has no IPv6 (its kernel was started with ipv6.disable=1, or has none): the network has IPv4 alone"


def available() -> bool:
    """Whether the kernel has IPv6 in this namespace. Interfaces on which it is only off can be told otherwise."""
    if not sysctl.read("ipv6/conf/all/forwarding"):
        return False
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()
    except OSError:
        return False
    return True


def enable_forwarding() -> None:
    """Let this host forward IPv6. Raises SystemFailure when it may not be told to.

    A host that forwards no longer believes router advertisements, and would lose the way out that it learnt
    from them: interfaces that listened to them go on listening.
    """
    if sysctl.read("ipv6/conf/all/forwarding") == "1":
        return
    for name in sysctl.interfaces("ipv6"):
        if sysctl.read(f"ipv6/conf/{name}/accept_ra") == "1" and name != "lo":
            sysctl.write(f"ipv6/conf/{name}/accept_ra", "2")
    sysctl.write("ipv6/conf/all/forwarding", "1")
