"""`--link`: other containers under names of one's own.

On the default bridge, which has no resolver, they stand in the hosts file and must run already. On all other networks
the resolver knows them, whenever they come.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from engine.containers.model import Container, EndpointSettings
from engine.errors import Conflict, InvalidInput, NotFound

if TYPE_CHECKING:
    from engine.containers.registry import Registry

_DEFAULT = "bridge"
_NAMELESS = ("", "default", _DEFAULT, "none")


def check(links: Sequence[str], registry: Registry) -> list[str]:
    """As they are kept: `CONTAINER:ALIAS`. Raises InvalidInput where one is none, or its container not there."""
    kept = []
    for link in links:
        ref, alias = _parse(link)
        try:
            other = registry.get(ref)
        except NotFound as error:
            raise InvalidInput(f"could not get container for {ref}: {error}") from None
        if other.host_config.network_mode == "host":
            raise InvalidInput(
                "conflicting options: host type networking can't be used with links. "
                "This would result in undefined behavior"
            )
        kept.append(f"{other.name if '/' in ref else ref}:{alias}")
    return kept


def named(container: Container, registry: Registry) -> Iterator[tuple[str, Container]]:
    """(alias, other container) of the links that give others a name, `/CONTAINER/ALIAS`; the first who has one keeps
    it. On networks with names of their own they give none, as in Docker."""
    if container.host_config.network_mode not in _NAMELESS:
        return
    seen: set[str] = set()
    for link in container.host_config.links:
        ref, alias = _parse(link)
        if alias in seen:
            continue
        seen.add(alias)
        try:
            yield alias, registry.get(ref)
        except (NotFound, InvalidInput):  # or now the beginning of several ids
            continue


def owners(container: Container, registry: Registry) -> list[Container]:
    """Those that have links to it."""
    return [one for one in registry.linking if any(other is container for _, other in named(one, registry))]


def names_of(container: Container, registry: Registry) -> list[str]:
    """All that others call it."""
    return sorted(
        f"/{owner.name}/{alias}"
        for owner in registry.linking
        for alias, other in named(owner, registry)
        if other is container
    )


def shown(container: Container, registry: Registry) -> list[str]:
    """As Docker tells them: `/OTHER:/CONTAINER/ALIAS`."""
    links = container.host_config.links
    if container.host_config.network_mode not in _NAMELESS:
        return links
    there = {alias: other.name for alias, other in named(container, registry)}
    return [f"/{there.get(alias, ref)}:/{container.name}/{alias}" for ref, alias in map(_parse, links)]


def renamed(links: Sequence[str], old: str, new: str) -> list[str]:
    """After a container got another name."""
    found = [_parse(link) for link in links]
    return [f"{new if ref == old else ref}:{alias}" for ref, alias in found]


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
        except (NotFound, InvalidInput):
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
