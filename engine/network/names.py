"""Which container a name means, on one network."""

from __future__ import annotations

from engine.network.model import Endpoint, Network


def lookup(network: Network, name: str) -> list[str]:
    """The addresses of those called `name` (in lower case)."""
    bare = name.removesuffix(f".{network.name.lower()}")
    return [endpoint.ip for endpoint in network.endpoints.values() if bare in _names(endpoint)]


def reverse(network: Network, address: str) -> str | None:
    """The name of whoever has `address`."""
    for endpoint in network.endpoints.values():
        if endpoint.ip == address and endpoint.aliases:
            return f"{endpoint.aliases[0]}.{network.name}"
    return None


def _names(endpoint: Endpoint) -> set[str]:
    return {endpoint.container_id[:12], *(alias.lower() for alias in endpoint.aliases)}
