"""`--link`: other containers under names of one's own.

On the default bridge, which has no resolver, they stand in the hosts file and must run already. On all other networks
the resolver knows them, whenever they come.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.containers.model import Container, EndpointSettings
from engine.containers.registry import Registry
from engine.errors import Conflict, InvalidInput, NotFound

_DEFAULT = "bridge"


def check(links: Sequence[str], registry: Registry) -> None:
    """Raises InvalidInput for one that is not `CONTAINER[:ALIAS]`, or whose container is not there."""
    for link in links:
        ref, _ = _parse(link)
        try:
            registry.get(ref)
        except NotFound as error:
            raise InvalidInput(f"could not get container for {ref}: {error}") from None


def in_hosts(container: Container, registry: Registry, *, strict: bool = True) -> list[tuple[str, str]]:
    """(name, address) for the hosts file. With `strict`, raises Conflict where the other container does not run."""
    found: list[tuple[str, str]] = []
    endpoint = container.network_settings.networks.get(_DEFAULT)
    if endpoint is None:
        return found
    for link in (*container.host_config.links, *endpoint.links):
        ref, alias = _parse(link)
        try:
            other: Container | None = registry.get(ref)
        except NotFound:
            if strict:
                raise
            other = None
        there = other.network_settings.networks.get(_DEFAULT) if other else None
        if other is not None and there is not None and there.ip_address:
            found += [(name, there.ip_address) for name in dict.fromkeys((alias, other.name, other.short_id))]
        elif strict:
            raise Conflict(f"Cannot link to a non running container: /{ref} AS /{container.name}/{alias}")
    return found


def for_resolver(container: Container, network: str, endpoint: EndpointSettings) -> list[str]:
    """`NAME:ALIAS` of each link on one network."""
    if network == _DEFAULT:
        return []
    named_by_mode = container.host_config.network_mode == network
    links = (*endpoint.links, *(container.host_config.links if named_by_mode else ()))
    return [":".join(_parse(link)) for link in links]


def without(links: Sequence[str], alias: str) -> list[str]:
    """All but those called `alias`. Raises NotFound when there is none."""
    left = [link for link in links if _parse(link)[1] != alias]
    if len(left) == len(links):
        raise NotFound(f"No such link: {alias}")
    return left


def _parse(link: str) -> tuple[str, str]:
    """(container, alias). Docker itself writes `/container:/owner/alias`."""
    ref, _, alias = link.partition(":")
    ref = ref.removeprefix("/")
    if not ref:
        raise InvalidInput(f"bad format for links: {link!r}: write it as CONTAINER:ALIAS")
    return ref, alias.rpartition("/")[2] or ref
