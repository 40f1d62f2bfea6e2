"""Who may do what: the face that every handler asks, and the guard of a registry without accounts."""

from __future__ import annotations

from typing import Literal, Protocol

from aiohttp import web

Action = Literal["pull", "push", "delete"]


class Guard(Protocol):
    """Raises RegistryError 401, 403 or 404. What is hidden and what is not there look the same."""

    async def login(self, request: web.Request) -> None:
        """The base endpoint: may this client speak to us at all?"""

    async def require(self, request: web.Request, repository: str, *actions: Action) -> None:
        """Passes when the client may do all of `actions` in `repository`."""

    async def visible(self, request: web.Request, names: list[str]) -> list[str]:
        """Those repositories of `names` that the client may know of, in the same order."""

    async def administer(self, request: web.Request) -> None:
        """Passes when the client may collect garbage, hold digests and manage accounts."""

    async def created(self, request: web.Request, repository: str) -> None:
        """Something was pushed into `repository`, maybe for the first time."""


class Open:
    """Everyone may do everything: for a registry that only this host, or a trusted network, can reach."""

    async def login(self, request: web.Request) -> None:
        return

    async def require(self, request: web.Request, repository: str, *actions: Action) -> None:
        return

    async def visible(self, request: web.Request, names: list[str]) -> list[str]:
        return names

    async def administer(self, request: web.Request) -> None:
        return

    async def created(self, request: web.Request, repository: str) -> None:
        return
