"""Docker's list filters: {"status": ["running"], "label": ["a=b", "c"]}. A key's values are alternatives."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from engine.containers import times
from engine.containers.model import Container
from engine.errors import InvalidInput, NotFound

Filters = Mapping[str, Sequence[str]]
Lookup = Callable[[str], Container]

KNOWN = frozenset(
    (
        "id",
        "name",
        "label",
        "label!",
        "status",
        "exited",
        "ancestor",
        "before",
        "since",
        "volume",
        "network",
        "health",
        "publish",
        "expose",
        "isolation",
        "is-task",
        "until",
    )
)
_YES, _NO = frozenset(("1", "true")), frozenset(("0", "false"))
_NUMBER = re.compile(r"-?\d{1,9}", re.ASCII)
_STATUSES = frozenset(("created", "running", "paused", "restarting", "removing", "exited", "dead"))
_HEALTH = frozenset(("starting", "healthy", "unhealthy", "none"))


def matches_labels(labels: Mapping[str, str], filters: Filters) -> bool:
    """All of `label`, none of `label!`."""
    for wanted in filters.get("label", ()):
        name, equals, value = wanted.partition("=")
        if name not in labels or (equals and labels[name] != value):
            return False
    for unwanted in filters.get("label!", ()):
        name, equals, value = unwanted.partition("=")
        if name in labels and (not equals or labels[name] == value):
            return False
    return True


def boolean(filters: Filters, key: str) -> bool | None:
    """What `1`, `true`, `0` or `false` says; None where nothing is said. Raises InvalidInput."""
    if key not in filters:
        return None
    yes, no = (bool(words.intersection(filters[key])) for words in (_YES, _NO))
    if yes == no:
        raise InvalidInput(f"invalid filter '{key}=[{' '.join(filters[key])}]'")
    return yes


def check(filters: Filters) -> None:
    """Raises InvalidInput for a key or a value that means nothing."""
    for key in filters:
        if key not in KNOWN:
            raise InvalidInput(f"invalid filter {key!r}")
    for key, allowed in (("status", _STATUSES), ("health", _HEALTH)):
        for value in filters.get(key, ()):
            if value not in allowed:
                raise InvalidInput(f"invalid filter '{key}={value}'")
    for value in filters.get("exited", ()):
        if _NUMBER.fullmatch(value) is None:
            raise InvalidInput(f"invalid filter 'exited={value}'")


def matcher(filters: Filters, lookup: Lookup, image_ids: Callable[[str], Sequence[str]]) -> Callable[[Container], bool]:
    """A test for containers. `image_ids(name)` gives the ids of an image and of those made from it."""
    check(filters)
    tests: list[Callable[[Container], bool]] = [lambda c: matches_labels(c.config.labels, filters)]

    def alternatives(key: str, test: Callable[[Container, str], bool]) -> None:
        values = filters.get(key)
        if values:
            tests.append(lambda c: any(test(c, value) for value in values))

    alternatives("id", lambda c, value: c.id.startswith(value))
    alternatives("name", lambda c, value: value.strip("^$").lstrip("/") in c.name and _anchored(c.name, value))
    alternatives("status", lambda c, value: c.state.status == value)
    alternatives("exited", lambda c, value: c.state.status == "exited" and c.state.exit_code == int(value))
    alternatives("health", lambda c, value: (c.state.health.status if c.state.health else "none") == value)
    alternatives("network", _on_network)
    alternatives("volume", lambda c, v: any(v in (point.name, point.destination) for point in c.mounts))
    alternatives("publish", lambda c, v: any(_port(v) == port for port in c.host_config.port_bindings))
    alternatives("expose", lambda c, v: any(_port(v) == port for port in c.config.exposed_ports))
    if boolean(filters, "is-task"):
        tests.append(lambda c: False)  # those are a swarm's
    if filters.get("ancestor"):
        ids = {found for name in filters["ancestor"] for found in _images(name, image_ids)}
        tests.append(lambda c: c.image in ids)
    for key, sign in (("before", -1), ("since", 1)):
        for value in filters.get(key, ()):
            created = lookup(value).created
            tests.append(
                lambda c, created=created, sign=sign: (c.created > created) - (c.created < created) == sign  # type: ignore[misc]
            )
    for value in filters.get("until", ()):
        limit = times.rfc3339(times.parse_since(value))
        tests.append(lambda c, limit=limit: c.created < limit)  # type: ignore[misc]
    return lambda container: all(test(container) for test in tests)


def _anchored(name: str, pattern: str) -> bool:
    bare = pattern.strip("^$").lstrip("/")
    starts = not pattern.startswith("^") or name.startswith(bare)
    ends = not pattern.endswith("$") or name.endswith(bare)
    return starts and ends


def _on_network(container: Container, value: str) -> bool:
    networks = container.network_settings.networks
    return value in networks or any(
        endpoint.network_id and endpoint.network_id.startswith(value) for endpoint in networks.values()
    )


def _port(value: str) -> str:
    return value if "/" in value else f"{value}/tcp"


def _images(name: str, image_ids: Callable[[str], Sequence[str]]) -> Sequence[str]:
    try:
        return image_ids(name)
    except NotFound:
        return ()
