"""Which container a name means, for the container that asks."""

from __future__ import annotations

from collections.abc import Iterable

from engine.network.model import Endpoint, Network

_SHORT_ID = 12


def lookup(served: Network, networks: Iterable[Network], asker: str, name: str) -> list[str]:
    """The addresses of those called `name` (in lower case), as the container with the address `asker` knows them.

    A container asks the resolver of one of its networks, `served`, and means its neighbours on all of them. Its own
    links come first.
    """
    me = next((one.container_id for one in served.endpoints.values() if one.ip == asker), None)
    around = [one for one in networks if one is not served and me in one.endpoints and not one.predefined]
    for network in (served, *around):
        for link in network.endpoints[me].links if me is not None else ():
            aim, _, alias = link.partition(":")
            if (alias or aim).lower() == name and (found := _called(network, aim.lower())):
                return found
    for network in (served, *around):
        if found := _called(network, name):
            return found
    return []


def reverse(network: Network, address: str) -> str | None:
    """The name of whoever has `address`."""
    for endpoint in network.endpoints.values():
        if endpoint.ip == address and endpoint.aliases:
            return f"{endpoint.aliases[0]}.{network.name}"
    return None


def _called(network: Network, name: str) -> list[str]:
    bare = name.removesuffix(f".{network.name.lower()}")
    return [endpoint.ip for endpoint in network.endpoints.values() if _is(endpoint, bare)]


def _is(endpoint: Endpoint, name: str) -> bool:
    if len(name) >= _SHORT_ID and endpoint.container_id.startswith(name):
        return True
    return any(alias.lower() == name for alias in endpoint.aliases)
