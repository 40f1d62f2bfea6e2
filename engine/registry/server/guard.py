"""Who may do what: the face that every handler asks, and the guard of a registry without accounts."""

from __future__ import annotations

from typing import Literal, Protocol

from aiohttp import web

from engine.registry.server import errors

Action = Literal["pull", "push", "delete"]


class Guard(Protocol):
    """Raises RegistryError 401, 403 or 404. What is hidden and what is not there look the same."""

    async def login(self, request: web.Request) -> None:
        """The base endpoint: may this client speak to us at all?"""

    async def sign_in(self, request: web.Request) -> None:
        """Has a browser ask for a password, if it has not sent one."""

    async def require(self, request: web.Request, repository: str, *actions: Action) -> None:
        """Passes when the client may do all of `actions` in `repository`."""

    async def visible(self, request: web.Request, names: list[str]) -> list[str]:
        """Those repositories of `names` that the client may know of, in the same order."""

    async def own(self, request: web.Request, repository: str) -> None:
        """Passes when the client may say who sees `repository`."""

    async def administer(self, request: web.Request) -> None:
        """Passes when the client may collect garbage, hold digests and manage accounts."""

    async def token(self, request: web.Request) -> web.Response:
        """A bearer token for what the client may do of what it asks for."""


class Open:
    """Everyone may do everything: for a registry that only this host, or a trusted network, can reach."""

    async def login(self, request: web.Request) -> None:
        return

    async def sign_in(self, request: web.Request) -> None:
        return

    async def require(self, request: web.Request, repository: str, *actions: Action) -> None:
        return

    async def visible(self, request: web.Request, names: list[str]) -> list[str]:
        return names

    async def own(self, request: web.Request, repository: str) -> None:
        return

    async def administer(self, request: web.Request) -> None:
        return

    async def token(self, request: web.Request) -> web.Response:
        raise errors.RegistryError(404, "NOT_FOUND", "this registry has no accounts: it asks for no token")
