"""Host ports: which are wished for, which are free, and holding on to them.

A published port lives in the kernel's rules, not in a process. So that no one else on the host can bind it
(and then wonder why nobody calls), the engine keeps a socket bound to it, which never receives anything.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import ipaddress
import socket
import struct
from collections.abc import Sequence

from engine.errors import Conflict, InvalidInput, SystemFailure
from engine.network.model import PortBinding, PortMapping

_SO_ATTACH_FILTER = 26
_ATTEMPTS = 64


class _DropEverything:
    """A socket filter of one instruction: return 0."""

    def __init__(self) -> None:
        self._code = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0))
        self.program = struct.pack("HL", 1, ctypes.addressof(self._code))


_DROP = _DropEverything()

Key = tuple[str, str, int]
"""Protocol, host address, host port."""


def normalise(mapping: PortMapping) -> PortMapping:
    """`mapping` with its host address filled in. Raises InvalidInput."""
    if mapping.protocol not in {"tcp", "udp"}:
        raise InvalidInput(f'protocol "{mapping.protocol}" can\'t be published: use tcp or udp')
    last = mapping.host_port_end or mapping.host_port
    if not 0 < mapping.container_port < 65536 or not 0 <= mapping.host_port <= last < 65536:
        raise InvalidInput(f"invalid port mapping {mapping.host_port}:{mapping.container_port}")
    try:
        address = ipaddress.ip_address(mapping.host_ip or "0.0.0.0")  # noqa: S104 — Docker's default
    except ValueError:
        raise InvalidInput(f'invalid host address "{mapping.host_ip}" for a published port') from None
    if address.version != 4:
        raise InvalidInput(f"host address {address}: ports are published on IPv4 addresses only")
    return PortMapping(mapping.container_port, mapping.protocol, str(address), mapping.host_port, last)


class HostPorts:
    """The host ports that this engine holds."""

    def __init__(self) -> None:
        self._held: dict[Key, socket.socket] = {}

    def reserve(self, mappings: Sequence[PortMapping]) -> list[PortBinding]:
        """Take a host port for each mapping: all, or none.

        Raises:
            Conflict: a port is taken, by a container or by another program on this host.
            InvalidInput: a mapping makes no sense.
        """
        bindings: list[PortBinding] = []
        try:
            for mapping in mappings:
                bindings.append(self._reserve(normalise(mapping)))  # noqa: PERF401 — kept if the next fails
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

    def _reserve(self, mapping: PortMapping) -> PortBinding:
        port = 0
        if mapping.host_port == 0:
            for _ in range(_ATTEMPTS):
                with contextlib.suppress(Conflict):
                    port = self._hold(mapping.protocol, mapping.host_ip, 0)
                    break
            else:
                raise Conflict(f"no free {mapping.protocol} port on {mapping.host_ip}")
        else:
            for port in range(mapping.host_port, mapping.host_port_end + 1):
                try:
                    self._hold(mapping.protocol, mapping.host_ip, port)
                    break
                except Conflict:
                    if port == mapping.host_port_end:
                        raise
        return PortBinding(mapping.host_ip, port, mapping.container_port, mapping.protocol)

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
        for one in {address, "0.0.0.0"}:  # noqa: S104
            if (protocol, one, port) in self._held:
                raise Conflict(f"Bind for {address}:{port} failed: port is already allocated")
        if address == "0.0.0.0" and any(  # noqa: S104
            held[0] == protocol and held[2] == port for held in self._held
        ):
            raise Conflict(f"Bind for {address}:{port} failed: port is already allocated")

    @staticmethod
    def _bind(protocol: str, address: str, port: int) -> socket.socket:
        kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
        held = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC)
        try:
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
            where = f"failed to bind host port {address}:{port}/{protocol}"
            if error.errno == errno.EADDRINUSE:
                raise Conflict(f"{where}: address already in use by another program on this host") from None
            if error.errno == errno.EADDRNOTAVAIL:
                raise Conflict(f"{where}: this host does not have that address") from None
            raise SystemFailure(f"{where}: {error.strerror}", error.errno) from error
        return held
