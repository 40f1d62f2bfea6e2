"""Requests to registries: one origin's secrets stay with it, failures are tried again, redirects are watched."""

from __future__ import annotations

import asyncio
import random
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import aiohttp
import msgspec
from aiohttp import ClientResponse, ClientSession, ClientTimeout, TCPConnector
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt
from yarl import URL

from engine.errors import Forbidden, InvalidInput, NotFound, Unauthorized, Unavailable
from engine.images.descriptor import MALFORMED
from engine.registry.client import auth as auths
from engine.registry.client import challenge as challenges
from engine.registry.client import credentials as known
from engine.registry.client import endpoint as endpoints
from engine.registry.client.auth import Auth, Token, Tokens
from engine.registry.client.challenge import Challenge
from engine.registry.client.endpoint import Endpoint
from engine.registry.client.failures import Transient, explain, failure, one_line, read_bounded, retry_after
from engine.registry.client.progress import ProgressEvent, listener

T = TypeVar("T")
Body = Callable[[], bytes | AsyncIterator[bytes]]
"""Makes the body anew for each try."""

_READ_BUFFER = 1 << 20
_MOST_REDIRECTS = 5
_TOLD_SECONDS = 1.0
"""Pauses from here on are told to whoever waits."""
_KNOWN_SECONDS = 60.0
"""How long what a credential helper said is believed."""
_UNPACKERS = 16
_MOST_TOKEN = 256 << 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_USER_AGENT = "shipway/0.1 (OCI distribution client)"


@dataclass(frozen=True)
class Patience:
    """How long to hope, seconds. A registry that asks for more than `longest` is not waited for."""

    connect: float = 10.0
    stall: float = 60.0
    attempts: int = 5
    first: float = 0.25
    longest: float = 20.0


class RegistryClient:
    """Talks to any number of registries. Keep one for the life of a process, in one loop, and `close` it.

    `insecure` names registries (HOST[:PORT] or CIDR) whose certificate need not be right and that may be spoken
    to in plain HTTP, as loopback always may. `mirrors` stand before Docker Hub. `ca` is trusted besides the
    system's roots. `trusted_realms` may receive passwords although they belong to another domain. `parallel`
    bounds the layers under way in one pull or push. `credentials` is a config.json of Docker's: who we are where a
    caller gives no `auth`.
    """

    def __init__(
        self,
        insecure: tuple[str, ...] = (),
        mirrors: tuple[str, ...] = (),
        *,
        ca: Path | None = None,
        certificates: Path = Path("/etc/docker/certs.d"),
        trusted_realms: tuple[str, ...] = (),
        patience: Patience | None = None,
        parallel: int = 4,
        credentials: Path | None = None,
    ) -> None:
        self.insecure = insecure
        self.mirrors = mirrors
        self.patience = patience or Patience()
        self.parallel = parallel
        self._ca = ca
        self._config = credentials
        self._known: dict[str, tuple[Auth | None, float]] = {}
        self._certificates = certificates
        self._trusted = trusted_realms
        self._tokens = Tokens()
        self._challenges: dict[str, tuple[Challenge, ...]] = {}
        self._endpoints: dict[str, Endpoint] = {}
        self._session: ClientSession | None = None
        self.unpackers = ThreadPoolExecutor(_UNPACKERS, "layer-unpack")
        """Where layers are unpacked while they arrive."""
        self.seen: dict[str, dict[str, None]] = {}
        """Which repositories (DOMAIN/PATH) are known to have a blob: where a push may mount it from."""

    async def __aenter__(self) -> RegistryClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        self.unpackers.shutdown(wait=False)
        if self._session is not None:
            await self._session.close()
            self._session = None

    def saw(self, domain: str, path: str, digest: str) -> None:
        """Remembers that this repository has this blob."""
        if len(self.seen) > 10_000:
            self.seen.pop(next(iter(self.seen)))
        self.seen.setdefault(digest, {})[f"{domain}/{path}"] = None

    async def endpoints_for(self, domain: str, *, mirrored: bool = False) -> list[Endpoint]:
        """Where to try, in order. Raises Unavailable when a registry that must be probed does not answer."""
        found: list[Endpoint] = []
        if mirrored and domain == "docker.io":
            for url in self.mirrors:
                tls = endpoints.tls_for(URL(url).authority, self._ca, self._certificates)
                found.append(endpoints.from_mirror(url, self.insecure, tls))
        return [*found, await self.endpoint(domain)]

    async def endpoint(self, domain: str) -> Endpoint:
        """The registry of a domain; where plain HTTP is allowed, what it speaks is found out once."""
        if domain not in self._endpoints:
            tls = endpoints.tls_for(domain, self._ca, self._certificates)
            ways = endpoints.candidates(domain, self.insecure, tls)
            self._endpoints[domain] = ways[0] if len(ways) == 1 else await self._probe(domain, ways)
        return self._endpoints[domain]

    async def _probe(self, domain: str, ways: Sequence[Endpoint]) -> Endpoint:
        async def probe() -> Endpoint:
            refusal: Unavailable | None = None
            for way in ways:
                try:
                    async with self._raw(way, "GET", way.base / "v2/", {}, None, way.tls) as response:
                        if response.status == 400 and way.base.scheme == "http":
                            refusal = Transient(f"{domain} does not speak plain HTTP")
                            continue
                        return way
                except Unavailable as error:
                    # What will not pass, as a wrong certificate, says more than what the other way met.
                    if refusal is None or not isinstance(error, Transient):
                        refusal = error
            assert refusal is not None
            raise refusal

        return await self.retried(probe)

    async def retried(self, work: Callable[[], Awaitable[T]]) -> T:
        """Does `work` again, with growing pauses, for as long as it raises Transient and patience lasts."""
        patience = self.patience

        def pause(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome is not None else None
            grown = min(patience.first * 2.0 ** (state.attempt_number - 1), patience.longest)
            asked = error.wait if isinstance(error, Transient) else None
            return max(asked or 0.0, grown * random.uniform(0.5, 1.0))  # noqa: S311  (spreads retries)

        def enough(state: RetryCallState) -> bool:
            error = state.outcome.exception() if state.outcome is not None else None
            asked = error.wait if isinstance(error, Transient) else None
            return (asked or 0.0) > patience.longest or stop_after_attempt(patience.attempts)(state)

        retrying = AsyncRetrying(
            stop=enough,
            wait=pause,
            retry=retry_if_exception_type(Transient),
            reraise=True,
            sleep=asyncio.sleep,
            before_sleep=_tell,
        )
        return await retrying(work)

    async def _known_auth(self, domain: str) -> Auth | None:
        """Who we are at a registry, where the caller has not said it. Raises InvalidInput."""
        if self._config is None:
            return None
        found, until = self._known.get(domain, (None, 0.0))
        if until < time.monotonic():
            found = await asyncio.to_thread(known.find, domain, self._config)
            self._known[domain] = (found, time.monotonic() + _KNOWN_SECONDS)
        return found

    @asynccontextmanager
    async def request(
        self,
        endpoint: Endpoint,
        method: str,
        url: URL,
        *,
        what: str,
        auth: Auth | None = None,
        scopes: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        allow: Sequence[int] = (),
    ) -> AsyncIterator[ClientResponse]:
        """One try: authenticates, follows redirects of reads, and passes answers below 300 or in `allow`.

        `what` begins the line of every error. Raises Transient for what may pass, and the kinds of
        `failures.failure` for the rest; also for failures while the caller reads the answer.
        """
        if auth is None:
            auth = await self._known_auth(endpoint.domain)
        asked_again = False
        target = url
        hops = 0
        while True:
            own = target.origin() == endpoint.base.origin()
            sent = dict(headers or {})
            credential = await self._credential(endpoint, auth, scopes) if own else None
            if credential is not None:
                sent["Authorization"] = credential
            tls = endpoint.tls if own else self._tls_abroad(target)
            async with self._raw(endpoint, method, target, sent, body, tls, what) as response:
                if response.status == 401 and own and not asked_again:
                    asked_again = True
                    found = tuple(challenges.parse(response.headers.getall("WWW-Authenticate", [])))
                    self._challenges[endpoint.domain] = found
                    self._tokens.drop(str(endpoint.base), auth, scopes, credential)
                    if await self._credential(endpoint, auth, scopes) is not None:
                        await self._drain(response)
                        continue
                if response.status in _REDIRECTS and method in ("GET", "HEAD"):
                    hops += 1
                    target = self._next_hop(response, target, endpoint, hops, what)
                    continue
                if response.status < 300 or response.status in allow:
                    yield response
                    return
                raise failure(response.status, what, await explain(response), _retry_after(response))

    async def fetch(
        self,
        endpoint: Endpoint,
        method: str,
        url: URL,
        *,
        what: str,
        limit: int = 1 << 20,
        auth: Auth | None = None,
        scopes: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        allow: Sequence[int] = (),
    ) -> Reply:
        """A request with a small answer, tried again as a whole."""

        async def once() -> Reply:
            async with self.request(
                endpoint, method, url, what=what, auth=auth, scopes=scopes, headers=headers, body=body, allow=allow
            ) as response:
                data = b"" if method == "HEAD" else await read_bounded(response, limit, what)
                return Reply(response.status, dict(response.headers), data, response.url)

        return await self.retried(once)

    @asynccontextmanager
    async def _raw(
        self,
        endpoint: Endpoint,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        body: Body | None,
        tls: object,
        what: str | None = None,
    ) -> AsyncIterator[ClientResponse]:
        """Sends; network failures, here and while the answer is read, become Transient or Unavailable."""
        what = what or endpoint.domain
        session = self._open_session()
        try:
            async with session.request(
                method,
                url,
                headers=headers,
                data=body() if body is not None else None,
                allow_redirects=False,
                ssl=tls,  # type: ignore[arg-type]
                proxy=_proxy_for(url),
            ) as response:
                yield response
        except aiohttp.ClientConnectorCertificateError as error:
            reason = one_line(str(error.certificate_error))
            raise Unavailable(
                f"{what}: the certificate of {url.authority} is not trusted ({reason}): "
                "give its CA, or name the registry as insecure"
            ) from error
        except TimeoutError as error:
            raise Transient(f"{what}: {url.authority} did not answer in time") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise Transient(f"{what}: {one_line(str(error) or type(error).__name__)}") from error

    def _open_session(self) -> ClientSession:
        if self._session is None:
            patience = self.patience
            self._session = ClientSession(
                connector=TCPConnector(limit=0, limit_per_host=2 * self.parallel, ttl_dns_cache=30),
                timeout=ClientTimeout(
                    total=None, connect=None, sock_connect=patience.connect, sock_read=patience.stall
                ),
                headers={"User-Agent": _USER_AGENT},
                read_bufsize=_READ_BUFFER,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def _credential(self, endpoint: Endpoint, auth: Auth | None, scopes: Sequence[str]) -> str | None:
        """The `Authorization` for what this registry asked of us before; None before it did."""
        found = {challenge.scheme: challenge for challenge in reversed(self._challenges.get(endpoint.domain, ()))}
        if "bearer" in found and (auth is None or auth.basic or auth.identity_token or "basic" not in found):
            origin = str(endpoint.base)
            wanted = scopes or tuple(found["bearer"].parameters.get("scope", "").split())
            async with self._tokens.asking(origin, auth, scopes):
                kept = self._tokens.get(origin, auth, scopes)
                if kept is not None:
                    return kept
                token = await self._ask_realm(endpoint, found["bearer"], auth, wanted)
                return self._tokens.put(origin, auth, scopes, token)
        if "basic" in found and auth is not None:
            return auth.basic
        return None

    async def _ask_realm(
        self, endpoint: Endpoint, challenge: Challenge, auth: Auth | None, scopes: Sequence[str]
    ) -> Token:
        asked = auths.token_request(challenge, endpoint.base, auth, scopes, self._trusted)
        what = f"token for {endpoint.domain}"
        tls = endpoint.tls if asked.url.host == endpoint.base.host else self._tls_abroad(asked.url)
        form = asked.form
        headers = dict(asked.headers)
        body: Body | None = None
        if form is not None:
            encoded = URL.build(query=form).raw_query_string.encode()
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            body = lambda: encoded  # noqa: E731

        async def once() -> Token:
            async with self._raw(
                endpoint, "GET" if body is None else "POST", asked.url, headers, body, tls, what
            ) as response:
                if response.status >= 300:
                    # Redirects are not followed here: the password would go along.
                    raise failure(response.status, what, await explain(response), _retry_after(response))
                data = await read_bounded(response, _MOST_TOKEN, what)
            try:
                return msgspec.json.decode(data, type=Token)
            except MALFORMED:
                raise Unauthorized(f"{what}: the token service's answer is not a token") from None

        return await self.retried(once)

    def _tls_abroad(self, url: URL) -> object:
        """TLS for a host that the registry sent us to."""
        domain = url.authority
        if endpoints.is_loopback(url.host or "") or endpoints.is_insecure(domain, self.insecure):
            return False
        return endpoints.tls_for(domain, self._ca, self._certificates)

    def _next_hop(self, response: ClientResponse, url: URL, endpoint: Endpoint, hops: int, what: str) -> URL:
        if hops > _MOST_REDIRECTS:
            raise Unavailable(f"{what}: more than {_MOST_REDIRECTS} redirects")
        target = join(url, response.headers.get("Location", ""), what)
        endpoints.check_reach(target, endpoint.base)
        safe = endpoints.is_loopback(target.host or "") or endpoints.is_insecure(target.authority, self.insecure)
        if target.scheme == "http" and endpoint.base.scheme == "https" and not safe:
            raise Forbidden(f"{what}: redirected to plain HTTP at {target.authority}: refused")
        return target

    @staticmethod
    async def _drain(response: ClientResponse) -> None:
        """Reads a small answer to its end so that the connection can be used again."""
        try:
            await read_bounded(response, 64 << 10, "answer")
        except InvalidInput:
            response.close()


@dataclass(frozen=True)
class Reply:
    """A small answer, read whole."""

    status: int
    headers: dict[str, str]
    data: bytes
    url: URL

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers.items() if key.lower() == name.lower()), "")


def join(url: URL, location: str, what: str) -> URL:
    """Where a Location leads, its own encoding untouched: registries sign what is in there."""
    try:
        target = url.join(URL(location, encoded=True))
    except ValueError:
        target = URL()
    if not location or target.scheme not in ("http", "https") or not target.host or target.user:
        raise Unavailable(f"{what}: the registry sent an unusable Location")
    return target


def _tell(state: RetryCallState) -> None:
    """Says why it takes longer, where it takes long enough to ask oneself."""
    error = state.outcome.exception() if state.outcome is not None else None
    if state.upcoming_sleep >= _TOLD_SECONDS and error is not None:
        listener.get()(ProgressEvent(None, f"Retrying in {state.upcoming_sleep:.0f} s: {error}"))


def _retry_after(response: ClientResponse) -> float | None:
    return retry_after(response.headers.get("Retry-After", ""))


def _proxy_for(url: URL) -> str | None:
    """The proxy that the environment names for this host (HTTP_PROXY, HTTPS_PROXY, NO_PROXY)."""
    host = url.host or ""
    if endpoints.is_loopback(host):
        return None
    proxies = urllib.request.getproxies_environment()
    if url.scheme not in proxies or urllib.request.proxy_bypass_environment(url.authority, proxies):  # type: ignore[attr-defined]
        return None
    return proxies[url.scheme]


__all__ = ["Auth", "NotFound", "Patience", "RegistryClient", "Reply", "join"]
