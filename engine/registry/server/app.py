"""The embedded registry as an aiohttp application, and its entry as a server."""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from engine.errors import EngineError
from engine.registry.server import admin, blobs, errors, listing, manifests, page, search, state, uploads
from engine.registry.server.access.accounts import Accounts
from engine.registry.server.access.members import Members
from engine.registry.server.guard import Guard
from engine.registry.server.metrics import Metrics
from engine.registry.server.state import STATE, Limits, State
from engine.registry.server.storage.collect import Rule
from engine.registry.server.storage.store import Storage

log = logging.getLogger(__name__)

_API_VERSION = {"Docker-Distribution-API-Version": "registry/2.0"}
_READ_BUFFER = 1 << 20
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Upkeep:
    """What the registry collects by itself, and every how many seconds; never when that is 0."""

    every: float = 3600.0
    rule: Rule = field(default_factory=Rule)


def make_app(
    root: Path,
    *,
    guard: Guard | None = None,
    limits: Limits | None = None,
    upkeep: Upkeep | None = None,
    realm: str | None = None,
) -> web.Application:
    """The registry over the files below `root`.

    Unless another `guard` is given, the accounts in `root/accounts.json` say who may do what; without that file
    everyone may do everything. `realm` is the URL of `/v2/token` as clients see it, where a proxy stands before us.
    Raises Conflict when another registry has `root` open.
    """
    app = web.Application(middlewares=[_observe], client_max_size=0)
    storage = Storage(root)
    members = guard or Members(Accounts(root), storage, realm=realm)
    app[STATE] = State(storage, members, Metrics(), limits or Limits())
    if upkeep is not None and upkeep.every > 0:
        app.cleanup_ctx.append(_keeping_house(upkeep))
    app.on_response_prepare.append(_name_version)
    app.on_cleanup.append(_close)
    add_routes(app)
    return app


def add_routes(app: web.Application) -> None:
    """Every endpoint of the distribution-spec, with a name that metrics can use as a label."""
    digest = "{digest:[^/]+}"
    repository = "/v2/{name:.+}"
    upload = repository + "/blobs/uploads/{upload:[^/]+}"
    router = app.router
    router.add_get("/v2", _base, name="base")
    router.add_get("/v2/", _base, name="base-slash")
    router.add_route("*", "/v2/token", _token, name="token")
    router.add_get("/v2/_catalog", listing.catalogue, name="catalogue")
    for path, name in (
        (repository + "/blobs/uploads", "uploads"),
        (repository + "/blobs/uploads/", "uploads-slash"),
    ):
        router.add_post(path, uploads.begin, name=name)
    resource = router.add_resource(upload, name="upload")
    for method, handler in (
        ("GET", uploads.status),
        ("PATCH", uploads.append),
        ("PUT", uploads.finish),
        ("DELETE", uploads.cancel),
    ):
        resource.add_route(method, handler)
    resource = router.add_resource(f"{repository}/blobs/{digest}", name="blob")
    resource.add_route("GET", blobs.get)
    resource.add_route("HEAD", blobs.get)
    resource.add_route("DELETE", blobs.delete)
    resource = router.add_resource(repository + "/manifests/{reference:[^/]+}", name="manifest")
    resource.add_route("GET", manifests.get)
    resource.add_route("HEAD", manifests.get)
    resource.add_route("PUT", manifests.put)
    resource.add_route("DELETE", manifests.delete)
    router.add_get(repository + "/tags/list", listing.tags, name="tags")
    router.add_get(f"{repository}/referrers/{digest}", listing.referrers, name="referrers")
    router.add_get("/v1/_ping", search.ping, name="ping")
    router.add_get("/v1/search", search.search, name="search")
    router.add_get("/", page.index, name="page")
    router.add_get("/repositories/{name:.+}", page.repository, name="page-repository")
    admin.add_routes(router)
    router.add_get("/metrics", _metrics, name="metrics")
    router.add_get("/healthz", _healthy, name="healthz")


async def _base(request: web.Request) -> web.Response:
    await state.of(request).guard.login(request)
    return web.Response(body=b"{}", content_type="application/json")


async def _token(request: web.Request) -> web.Response:
    if request.method not in ("GET", "POST"):
        raise errors.unsupported(f"{request.method} is not possible here")
    return await state.of(request).guard.token(request)


async def _metrics(request: web.Request) -> web.Response:
    registry = state.of(request)
    body = await asyncio.to_thread(registry.metrics.render, registry.storage)
    return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


async def _healthy(request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def _name_version(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_API_VERSION)


@web.middleware
async def _observe(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Turns refusals into the spec's JSON, and counts."""
    began = time.perf_counter()
    response: web.StreamResponse
    try:
        response = await handler(request)
    except errors.RegistryError as error:
        response = error.response()
    except web.HTTPMethodNotAllowed:
        response = errors.unsupported(f"{request.method} is not possible here").response()
    except web.HTTPNotFound:
        response = errors.RegistryError(404, "NOT_FOUND", "no such page").response()
    except EngineError as error:
        # Of ours only the accounts' file can be wrong: then nobody enters.
        log.error("%s %s: %s", request.method, request.path, error)
        response = errors.RegistryError(503, "UNAVAILABLE", "the registry's accounts can't be read").response()
    except OSError as error:
        log.exception("%s %s failed", request.method, request.path)
        response = errors.RegistryError(507, "UNKNOWN", f"the registry's disk failed: {error.strerror}").response()
    if not request.content.is_eof():
        # A refusal while the body is still coming: reading the rest of a large blob would help nobody.
        response.force_close()
    resource = request.match_info.route.resource
    route = (resource.name if resource is not None else None) or "none"
    request.app[STATE].metrics.observe(request.method, route, response.status, time.perf_counter() - began)
    return response


def _keeping_house(upkeep: Upkeep) -> Callable[[web.Application], AsyncIterator[None]]:
    async def collect(registry: State) -> None:
        while True:
            await asyncio.sleep(upkeep.every)
            try:
                done = await admin.run(registry, upkeep.rule)
            except OSError:
                log.exception("collection failed")
            else:
                if done.tags or done.manifests or done.blobs:
                    log.info(
                        "collected %d tags, %d manifests, %d blobs, %d bytes",
                        *(len(done.tags), len(done.manifests), done.blobs, done.bytes),
                    )

    async def context(app: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(collect(app[STATE]))
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    return context


async def _close(app: web.Application) -> None:
    app[STATE].storage.close()


async def start(
    app: web.Application, host: str, port: int, *, tls: ssl.SSLContext | None = None
) -> tuple[web.AppRunner, int]:
    """Listens; returns the runner, whose `cleanup` ends it all, and the port (chosen when 0 was asked)."""
    runner = web.AppRunner(app, access_log=None, read_bufsize=_READ_BUFFER, shutdown_timeout=5)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, ssl_context=tls, backlog=512)
        await site.start()
    except BaseException:
        await runner.cleanup()
        raise
    return runner, runner.addresses[0][1]


def tls_of(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """To serve TLS with this chain and key (PEM); None without a chain. Raises OSError."""
    if certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


async def serve(
    host: str,
    port: int,
    root: Path,
    *,
    guard: Guard | None = None,
    limits: Limits | None = None,
    tls: ssl.SSLContext | None = None,
    upkeep: Upkeep | None = None,
    realm: str | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT. What is under way then has five seconds to finish."""
    app = make_app(root, guard=guard, limits=limits, upkeep=upkeep or Upkeep(), realm=realm)
    runner, actual = await start(app, host, port, tls=tls)
    log.info("registry at %s:%d over %s", host, actual, root)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await stop.wait()
    finally:
        await runner.cleanup()
