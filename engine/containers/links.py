"""`--link`: other containers under names of one's own, in the hosts file: what came before networks."""

from __future__ import annotations

from collections.abc import Sequence

from engine.containers.model import Container
from engine.containers.registry import Registry
from engine.errors import Conflict, InvalidInput, NotFound


def check(links: Sequence[str], registry: Registry) -> None:
    """Raises InvalidInput for one that is not `CONTAINER[:ALIAS]`, or whose container is not there."""
    for link in links:
        ref, _ = _parse(link)
        try:
            registry.get(ref)
        except NotFound as error:
            raise InvalidInput(f"could not get container for {ref}: {error}") from None


def names(container: Container, registry: Registry) -> list[tuple[str, str]]:
    """(name, address) for the hosts file. Raises Conflict where the other container does not run."""
    found: list[tuple[str, str]] = []
    networks = container.network_settings.networks
    for network, endpoint in networks.items():
        links = [*endpoint.links, *(container.host_config.links if network == "bridge" else ())]
        for link in links:
            ref, alias = _parse(link)
            other = registry.get(ref)
            there = other.network_settings.networks.get(network)
            if there is None or not there.ip_address:
                raise Conflict(f"Cannot link to a non running container: /{other.name} AS /{container.name}/{alias}")
            found += [(name, there.ip_address) for name in dict.fromkeys((alias, other.name, other.short_id))]
    return found


def _parse(link: str) -> tuple[str, str]:
    """(container, alias). Docker itself writes `/container:/owner/alias`."""
    ref, _, alias = link.partition(":")
    ref = ref.removeprefix("/")
    if not ref:
        raise InvalidInput(f"bad format for links: {link!r}: write it as CONTAINER:ALIAS")
    return ref, alias.rpartition("/")[2] or ref
