"""Bridges: one for each network."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

from engine.errors import SystemFailure
from engine.network import links
from engine.network.addresses import mac_for
from engine.network.netlink import Netlink, NetlinkError

_LOCK = Path("/run/lock/shipway-subnets.lock")
_SYSCTL = Path("/proc/sys/net/ipv4")


@contextlib.contextmanager
def subnet_lock() -> Iterator[None]:
    """Hold while choosing a subnet and until its bridge is there.

    Several engines on one machine would otherwise see the same subnet free.
    """
    _LOCK.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def ensure(netlink: Netlink, name: str, gateway: str, prefix: int) -> int:
    """Make the bridge with its address, or complete one that is there; returns its interface index."""
    with contextlib.suppress(NetlinkError):
        netlink.send([links.add_bridge(name, mac_for(IPv4Address(gateway)))])
    index = links.find_link(netlink, name).index
    netlink.send(
        [links.set_up(index), links.add_address(index, gateway, prefix)],
        ignore=frozenset({errno.EEXIST}),
    )
    # 127.0.0.1:PORT of the host leads to containers; what they send to 127/8 is dropped by rule.
    _write(_SYSCTL / f"conf/{name}/route_localnet", "1")
    return index


def remove(netlink: Netlink, name: str) -> None:
    """Remove a bridge; it being gone already is no error."""
    netlink.send([links.delete_link(name)], ignore=frozenset({errno.ENODEV}))


def enable_forwarding() -> None:
    """Let this host forward packets. Raises SystemFailure when it may not be told to."""
    if (_SYSCTL / "ip_forward").read_text().strip() != "1":
        _write(_SYSCTL / "ip_forward", "1")


def _write(path: Path, value: str) -> None:
    try:
        path.write_text(value)
    except OSError as error:
        raise SystemFailure(f"{path}: {error.strerror}; is /proc/sys writable here?", error.errno) from error
