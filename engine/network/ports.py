"""Host ports: which are wished for, which are free, and holding on to them.

A published port lives in the kernel's rules, not in a process. So that no one else on the host can bind it
(and then wonder why nobody calls), the engine keeps a socket bound to it, which never receives anything.
"""

from __future__ import annotations

import ctypes
import errno
import ipaddress
import socket
import struct
from collections.abc import Sequence

from engine.errors import Conflict, InvalidInput, SystemFailure
from engine.network.model import LOOPBACK6, PortBinding, PortMapping

_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27
_ATTEMPTS = 64


class _DropEverything:
    """A socket filter of one instruction: return 0."""

    def __init__(self) -> None:
        self._code = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0))
        self.program = struct.pack("HL", 1, ctypes.addressof(self._code))


_DROP = _DropEverything()

_ALL = {4: "0.0.0.0", 6: "::"}  # noqa: S104 - Docker's default

Key = tuple[str, str, int]
"""Protocol, host address, host port."""


def normalise(mapping: PortMapping) -> PortMapping:
    """`mapping` with its host address in its usual spelling, and empty for all. Raises InvalidInput."""
    if mapping.protocol not in {"tcp", "udp"}:
        raise InvalidInput(f'protocol "{mapping.protocol}" can\'t be published: use tcp or udp')
    last = mapping.host_port_end or mapping.host_port
    if not 0 < mapping.container_port < 65536 or not 0 <= mapping.host_port <= last < 65536:
        raise InvalidInput(f"invalid port mapping {mapping.host_port}:{mapping.container_port}")
    address = mapping.host_ip
    if address:
        try:
            address = str(ipaddress.ip_address(address.strip("[]")))
        except ValueError:
            raise InvalidInput(f'invalid host address "{mapping.host_ip}" for a published port') from None
    if address == LOOPBACK6 and mapping.protocol != "tcp":
        raise InvalidInput("host address ::1: only tcp can be published there; publish on 127.0.0.1")
    return PortMapping(mapping.container_port, mapping.protocol, address, mapping.host_port, last)


def _addresses(mapping: PortMapping, *, ipv6: bool) -> list[str]:
    """On which of the host's addresses a port is published."""
    if not mapping.host_ip:
        return [_ALL[4], _ALL[6]] if ipv6 else [_ALL[4]]
    if ":" in mapping.host_ip and mapping.host_ip != LOOPBACK6 and not ipv6:
        raise InvalidInput(
            f"host address {mapping.host_ip}: the container has no IPv6; put it on a network made with --ipv6"
        )
    return [mapping.host_ip]


class HostPorts:
    """The host ports that this engine holds."""

    def __init__(self) -> None:
        self._held: dict[Key, socket.socket] = {}

    def reserve(self, mappings: Sequence[PortMapping], *, ipv6: bool = False) -> list[PortBinding]:
        """Take a host port for each mapping, the same on IPv4 and, where the container has it, IPv6: all, or none.

        Raises:
            Conflict: a port is taken, by a container or by another program on this host.
            InvalidInput: a mapping makes no sense, or names an address that this host does not have.
        """
        bindings: list[PortBinding] = []
        try:
            for mapping in mappings:
                bindings += self._reserve(normalise(mapping), ipv6=ipv6)
        except BaseException:
            self.release(bindings)
            raise
        return bindings

    def adopt(self, bindings: Sequence[PortBinding]) -> list[PortBinding]:
        """Hold ports that are published already; returns those that another program has bound meanwhile."""
        lost: list[PortBinding] = []
        for binding in bindings:
            try:
                self._hold(binding.protocol, binding.host_ip, binding.host_port)
            except Conflict:
                lost.append(binding)
        return lost

    def listen(self, binding: PortBinding) -> socket.socket | None:
        """A socket that listens on a TCP port that is held, for the caller to close; None where it is not held."""
        held = self._held.get((binding.protocol, binding.host_ip, binding.host_port))
        if held is None:
            return None
        held.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
        # Its connections inherit this: those that linger after their close do not keep the port from the next.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.listen(64)
        return held.dup()

    def release(self, bindings: Sequence[PortBinding]) -> None:
        """Let ports go. Those not held are no error."""
        for binding in bindings:
            held = self._held.pop((binding.protocol, binding.host_ip, binding.host_port), None)
            if held is not None:
                held.close()

    def close(self) -> None:
        for held in self._held.values():
            held.close()
        self._held.clear()

    def _reserve(self, mapping: PortMapping, *, ipv6: bool) -> list[PortBinding]:
        addresses = _addresses(mapping, ipv6=ipv6)
        if mapping.host_port == 0:
            candidates = [0] * _ATTEMPTS
        else:
            candidates = list(range(mapping.host_port, mapping.host_port_end + 1))
        for candidate in candidates:
            try:
                port = self._hold_all(mapping.protocol, addresses, candidate)
            except Conflict:
                if candidate == candidates[-1] and candidate:
                    raise
                continue
            return [PortBinding(one, port, mapping.container_port, mapping.protocol) for one in addresses]
        raise Conflict(f"no free {mapping.protocol} port on {' and '.join(addresses)}")

    def _hold_all(self, protocol: str, addresses: Sequence[str], port: int) -> int:
        """Hold one port on several addresses, or on none of them."""
        held: list[str] = []
        try:
            for address in addresses:
                port = self._hold(protocol, address, port)
                held.append(address)
        except BaseException:
            for address in held:
                self._held.pop((protocol, address, port)).close()
            raise
        return port

    def _hold(self, protocol: str, address: str, port: int) -> int:
        self._check_own(protocol, address, port)
        held = self._bind(protocol, address, port)
        chosen = int(held.getsockname()[1])
        if not port:
            try:
                self._check_own(protocol, address, chosen)
            except Conflict:
                held.close()
                raise
        self._held[protocol, address, chosen] = held
        return chosen

    def _check_own(self, protocol: str, address: str, port: int) -> None:
        """Raise Conflict when a container of this engine has the port, on this address or on all."""
        everywhere = _ALL[6 if ":" in address else 4]
        taken = any((protocol, one, port) in self._held for one in (address, everywhere))
        if address == everywhere and not taken:
            taken = any(
                held[0] == protocol and held[2] == port and (":" in held[1]) == (":" in address) for held in self._held
            )
        if taken:
            where = f"[{address}]" if ":" in address else address
            raise Conflict(f"Bind for {where}:{port} failed: port is already allocated")

    @staticmethod
    def _bind(protocol: str, address: str, port: int) -> socket.socket:
        kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
        ipv6 = ":" in address
        held = socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET, kind | socket.SOCK_CLOEXEC)
        try:
            if ipv6:
                held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            held.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, _DROP.program)
            try:
                held.bind((address, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE or protocol == "udp":
                    raise
                # Perhaps only connections that linger after their close (TIME_WAIT) are in the way. Listening
                # tells: it is refused if a program listens there.
                held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                held.bind((address, port))
                held.listen(1)
        except OSError as error:
            held.close()
            where = f"failed to bind host port {f'[{address}]' if ipv6 else address}:{port}/{protocol}"
            if error.errno == errno.EADDRINUSE:
                raise Conflict(f"{where}: address already in use by another program on this host") from None
            if error.errno == errno.EADDRNOTAVAIL:
                raise InvalidInput(f"{where}: this host does not have that address") from None
            raise SystemFailure(f"{where}: {error.strerror}", error.errno) from error
        return held
