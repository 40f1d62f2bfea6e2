"""One repository at one registry, as one user sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from aiohttp import ClientResponse
from yarl import URL

from engine.errors import EngineError, Forbidden, NotFound, Unauthorized, Unavailable
from engine.images.reference import Reference
from engine.registry.client.auth import Auth
from engine.registry.client.endpoint import Endpoint
from engine.registry.client.transport import Body, RegistryClient, Reply

_T = TypeVar("_T")


@dataclass
class Remote:
    """Requests below `/v2/PATH/`. `actions` are what tokens are asked for, once for a whole pull or push."""

    client: RegistryClient
    endpoint: Endpoint
    path: str
    auth: Auth | None = None
    actions: str = "pull"
    sources: list[str] = field(default_factory=list)
    """Further repositories whose blobs this user wants to mount: tokens must allow reading them."""

    @property
    def name(self) -> str:
        return f"{self.endpoint.domain}/{self.path}"

    def url(self, tail: str) -> URL:
        return URL(f"{self.endpoint.base}/v2/{self.path}/{tail}", encoded=True)

    def scopes(self) -> list[str]:
        return [f"repository:{self.path}:{self.actions}", *(f"repository:{path}:pull" for path in self.sources)]

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: URL,
        *,
        what: str,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        allow: Sequence[int] = (),
    ) -> AsyncIterator[ClientResponse]:
        """One try (`RegistryClient.request`)."""
        async with self.client.request(
            self.endpoint,
            method,
            url,
            what=what,
            auth=self.auth,
            scopes=self.scopes(),
            headers=headers,
            body=body,
            allow=allow,
        ) as response:
            yield response

    async def fetch(
        self,
        method: str,
        url: URL,
        *,
        what: str,
        limit: int = 1 << 20,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        allow: Sequence[int] = (),
    ) -> Reply:
        """A small answer, with retries (`RegistryClient.fetch`)."""
        return await self.client.fetch(
            self.endpoint,
            method,
            url,
            what=what,
            limit=limit,
            auth=self.auth,
            scopes=self.scopes(),
            headers=headers,
            body=body,
            allow=allow,
        )


async def first_answer(
    client: RegistryClient,
    reference: Reference,
    auth: Auth | None,
    ask: Callable[[Remote], Awaitable[_T]],
    failed: Callable[[Endpoint, EngineError], object] = lambda mirror, error: None,
) -> _T:
    """What `ask` brings from the first place that can help: a mirror, or else the registry itself.

    Mirrors are asked without `auth`, which is the registry's own; `failed` is told of each that can't help. Raises
    what `ask` does.
    """
    *mirrors, origin = await client.endpoints_for(reference.domain, mirrored=True)
    for mirror in mirrors:
        try:
            return await ask(Remote(client, mirror, reference.path))
        except (NotFound, Unavailable, Unauthorized, Forbidden) as error:
            failed(mirror, error)
    return await ask(Remote(client, origin, reference.path, auth))
