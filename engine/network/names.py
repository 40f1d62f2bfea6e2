"""Which container a name means, for one that asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from engine.network.model import Endpoint, Network

_SHORT_ID = 12


class Names:
    """What one container may know of its neighbours, and whom else it may ask."""

    def __init__(self, networks: Mapping[str, Network], container_id: str) -> None:
        self._networks = networks
        self._container_id = container_id

    def lookup(self, name: str) -> list[Endpoint]:
        """Those called `name` (in lower case), on any network that the container is on."""
        found: list[Endpoint] = []
        for network, own in self._mine():
            bare = name.removesuffix(f".{network.name.lower()}")
            for link in own.links:
                target, _, alias = link.partition(":")
                if (alias or target).lower() == bare and (linked := _called(network, target.lower())):
                    return linked
            found += _called(network, bare)
        return found

    def reverse(self, address: str) -> str | None:
        """The name of whoever has `address`."""
        for network, _ in self._mine():
            for endpoint in network.endpoints.values():
                if address in (endpoint.ip, endpoint.ip6) and endpoint.aliases:
                    return f"{endpoint.aliases[0]}.{network.name}"
        return None

    @property
    def leads_outside(self) -> bool:
        """Whether names of the world are answered: else a name would carry data out of an internal network."""
        return any(
            not network.internal for network in self._networks.values() if self._container_id in network.endpoints
        )

    @property
    def servers(self) -> tuple[str, ...]:
        """The resolvers that the container brought, if any."""
        return next((tuple(own.dns) for _, own in self._mine() if own.dns), ())

    def _mine(self) -> Iterator[tuple[Network, Endpoint]]:
        for network in list(self._networks.values()):
            own = network.endpoints.get(self._container_id)
            if own is not None and network.has_names:
                yield network, own


def _called(network: Network, name: str) -> list[Endpoint]:
    return [endpoint for endpoint in network.endpoints.values() if _is(endpoint, name)]


def _is(endpoint: Endpoint, name: str) -> bool:
    if len(name) >= _SHORT_ID and endpoint.container_id.startswith(name):
        return True
    return any(alias.lower() == name for alias in endpoint.aliases)
