"""The other engine, over its API: `unix://PATH` or `tcp://HOST:PORT`, with TLS where there is a certificate."""

from __future__ import annotations

import contextlib
import os
import ssl
import tempfile
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec

from engine.containers.model import State, TlsPems, to_json
from engine.containers.move.offer import Answer, Offer
from engine.errors import (
    Conflict,
    EngineError,
    Forbidden,
    InvalidInput,
    NotFound,
    SystemFailure,
    Unauthorized,
    Unavailable,
)
from engine.images.descriptor import MALFORMED

_CONNECT_SECONDS = 10.0
_SILENCE_SECONDS = 60.0
"""How long the other side may think about a request, once it has it whole."""

_UNPACK_SECONDS = 1800.0
"""How long it may be busy with a layer that it has."""

_KINDS: dict[int, type[EngineError]] = {
    400: InvalidInput,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    503: Unavailable,
}
Body = bytes | AsyncIterator[bytes] | None


class Lost(Unavailable):
    """The other engine can't be reached, or went away before it answered: whether it did what it was told is open."""


class Peer:
    """One move's conversation. Raises what the other engine answers, and `Lost` where it does not."""

    def __init__(self, host: str, tls: TlsPems | None, move: str) -> None:
        self.host = host
        self._path = f"/moves/{quote(move, safe='')}"
        self._session = _session(host, tls)
        self._base = "http://engine" if host.startswith("unix://") else f"{_scheme(tls)}://{urlsplit(host).netloc}"

    async def __aenter__(self) -> Peer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        await self._session.close()

    async def offer(self, offer: Offer) -> Answer:
        """Asks whether the container may come; from here on the other side keeps its name for it."""
        answer = await self._ask("POST", "/moves", msgspec.json.encode(offer), json=True)
        return msgspec.convert(answer, Answer)

    async def blob(self, digest: str, data: AsyncIterator[bytes], size: int) -> None:
        await self._ask("PUT", f"{self._path}/blobs/{digest}", data, size=size, timeout=_UNPACK_SECONDS)

    async def create(self) -> None:
        """The container and all that belongs to it, without its files; it can't be started by anyone."""
        await self._ask("POST", f"{self._path}/container", timeout=_UNPACK_SECONDS)

    async def remove(self, tree: str, gone: list[bytes]) -> None:
        await self._ask("POST", f"{self._path}/trees/{quote(tree, safe='')}/gone", b"\0".join(gone))

    async def put(self, tree: str, tar: AsyncIterator[bytes]) -> None:
        await self._ask("PUT", f"{self._path}/trees/{quote(tree, safe='')}", tar)

    async def start(self, *, start: bool, state: State) -> None:
        """Returns when it runs and is healthy. Asked again, it does what is still to be done."""
        body = msgspec.json.encode({"Start": start, "State": to_json(state)})
        # The other side answers now and then, that one which has died without a word is not waited for.
        while not (await self._ask("POST", f"{self._path}/start", body, json=True)).get("Ready"):
            continue

    async def commit(self) -> None:
        """It is the other engine's alone from now on."""
        await self._ask("POST", f"{self._path}/commit")

    async def discard(self) -> None:
        """Nothing of it is left there. Where it never was, all is well too."""
        with contextlib.suppress(NotFound):
            await self._ask("DELETE", self._path)

    async def failure(self) -> str:
        """What went wrong there with what was sent last; empty where nothing did."""
        answer = await self._ask("GET", self._path)
        return str(answer.get("Error", ""))

    async def _ask(
        self,
        method: str,
        path: str,
        body: Body = None,
        *,
        json: bool = False,
        size: int | None = None,
        timeout: float = _SILENCE_SECONDS,
    ) -> dict[str, Any]:
        headers = {"Content-Type": "application/json" if json else "application/octet-stream"}
        if size is not None:
            headers["Content-Length"] = str(size)
        limits = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=timeout)
        try:
            async with self._session.request(
                method, f"{self._base}{path}", data=body, headers=headers, timeout=limits, allow_redirects=False
            ) as response:
                data = await response.read()
        except ssl.SSLError as error:
            raise Lost(f"{self.host}: TLS failed: {error.reason or error}") from None
        except aiohttp.ClientConnectorError as error:
            raise Lost(f"{self.host} can't be reached: {_reason(error.os_error)}") from None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Lost(f"{self.host} went away: {_reason(error)}") from None
        return self._read(response.status, data)

    def _read(self, status: int, data: bytes) -> dict[str, Any]:
        try:
            answer = msgspec.json.decode(data, type=dict[str, Any]) if data.strip() else {}
        except MALFORMED:
            answer = {}
        if status < 300:
            return answer
        said = str(answer.get("message") or f"HTTP {status}")[:2000]
        if said == "page not found":
            raise InvalidInput(f"{self.host} is no Shipway engine, or an older one: it can't take containers")
        kind = _KINDS.get(status, SystemFailure)
        raise kind(f"{self.host}: {said}")


def check(host: str, tls: TlsPems | None) -> None:
    """Raises InvalidInput for an address that is none."""
    parts = urlsplit(host)
    if parts.scheme == "unix" and parts.path.startswith("/"):
        return
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme != "tcp" or not parts.hostname or not port:
        raise InvalidInput(f"invalid host {host[:200]!r}: write it as tcp://HOST:2376 or unix:///PATH")
    if tls is not None:
        _context(tls)


def _scheme(tls: TlsPems | None) -> str:
    return "https" if tls is not None else "http"


def _session(host: str, tls: TlsPems | None) -> aiohttp.ClientSession:
    connector: aiohttp.BaseConnector
    if host.startswith("unix://"):
        connector = aiohttp.UnixConnector(host.removeprefix("unix://"))
    else:
        connector = aiohttp.TCPConnector(ssl=_context(tls) if tls is not None else True)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)


def _context(tls: TlsPems) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=tls.authority or None)
        if tls.certificate:
            # OpenSSL reads these from files only.
            with tempfile.NamedTemporaryFile("w", prefix="shipway-move-") as chain:
                os.fchmod(chain.fileno(), 0o600)
                chain.write(f"{tls.certificate}\n{tls.key}\n")
                chain.flush()
                context.load_cert_chain(chain.name)
    except (ssl.SSLError, ValueError) as error:
        raise InvalidInput(f"TLS: these are no usable certificate and key: {error}") from None
    return context


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
