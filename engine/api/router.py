"""From a method and a path to the function that answers."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from engine.api.errors import NotImplementedHere
from engine.errors import NotFound, Unavailable

if TYPE_CHECKING:
    from engine.api.call import Call

Handler = Callable[["Call"], Awaitable[web.StreamResponse]]

_PLACEHOLDER = re.compile(r"\{(\w+)(:\w+)?\}")
_STANDS_FOR = {None: "[^/]+", ":path": ".+", ":link": "[^/]+(?:/[^/]+)?"}
_SWARM = frozenset({"swarm", "services", "tasks", "nodes", "secrets", "configs"})


@dataclass(frozen=True)
class Route:
    """`streaming` handlers are cancelled when their client goes away; all others run to their end."""

    method: str
    pattern: re.Pattern[str]
    handler: Handler
    streaming: bool


class Routes:
    """A table of routes. `{name}` stands for one segment of a path, `{name:path}` for one or more.

    `{name:link}` stands for one or two: a container is called OTHER/ALIAS, too.
    """

    def __init__(self) -> None:
        self._by_start: dict[tuple[str, str], list[Route]] = {}

    def add(self, method: str, path: str, *, streaming: bool = False) -> Callable[[Handler], Handler]:
        """Decorates a handler."""
        expression = _PLACEHOLDER.sub(lambda found: f"(?P<{found[1]}>{_STANDS_FOR[found[2]]})", path)

        def register(handler: Handler) -> Handler:
            route = Route(method, re.compile(expression), handler, streaming)
            self._by_start.setdefault((method, _start(path)), []).append(route)
            return handler

        return register

    def include(self, other: Routes) -> None:
        for key, routes in other._by_start.items():
            self._by_start.setdefault(key, []).extend(routes)

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """The route for a request and what its placeholders stand for. Raises NotFound."""
        start = _start(path)
        for route in self._by_start.get((method, start), ()):
            match = route.pattern.fullmatch(path)
            if match is not None:
                return route, match.groupdict()
        if start in _SWARM:
            raise Unavailable("This node is not a swarm manager: this engine has no swarm mode")
        if start == "plugins" and path.count("/") > 1:
            raise NotFound(f'plugin "{path.split("/")[2]}" not found')
        if start == "session":
            raise NotImplementedHere("this engine has no BuildKit: set DOCKER_BUILDKIT=0")
        raise NotFound("page not found")


def _start(path: str) -> str:
    return path[1:].partition("/")[0]
