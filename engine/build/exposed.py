"""EXPOSE's ports.

https://docs.docker.com/reference/dockerfile/#expose
"""

from __future__ import annotations

import ipaddress
import re

_PORT = re.compile(r"[0-9]{1,5}\Z")


def exposed_ports(spec: str) -> tuple[str, ...]:
    """`80`, `53/udp`, `7000-7010/tcp` → `80/tcp` and so on. Raises ValueError.

    The forms `host:container` and `ip:host:container` are read too, their first parts without effect.
    """
    address, host, container = _split(spec)
    ports, _, protocol = container.partition("/")
    protocol = protocol.lower() or "tcp"
    if not ports:
        raise ValueError(f'invalid port: "{spec}": no port specified')
    if protocol not in ("tcp", "udp", "sctp"):
        raise ValueError(f'invalid port: "{spec}": invalid proto: {protocol}')
    if address:
        try:
            ipaddress.ip_address(address.removeprefix("[").removesuffix("]"))
        except ValueError:
            raise ValueError(f"invalid IP address: {address}") from None
    first, last = _range(ports, "containerPort")
    if host:
        low, high = _range(host, "hostPort")
        if high - low != last - first and last != first:
            raise ValueError(f"invalid ranges specified for container and host Ports: {ports} and {host}")
    return tuple(f"{port}/{protocol}" for port in range(first, last + 1))


def _split(spec: str) -> tuple[str, str, str]:
    parts = spec.rsplit(":", 2)
    if len(parts) == 3:
        return parts[0], parts[1], parts[2]
    return ("", parts[0], parts[1]) if len(parts) == 2 else ("", "", parts[0])


def _range(text: str, name: str) -> tuple[int, int]:
    start, dash, end = text.partition("-")
    bounds = (start, end) if dash else (start, start)
    if not all(_PORT.match(bound) and int(bound) <= 65535 for bound in bounds):
        raise ValueError(f"invalid {name}: {text}")
    first, last = int(bounds[0]), int(bounds[1])
    if last < first:
        raise ValueError(f"invalid {name}: {text}: the range ends before it begins")
    return first, last
