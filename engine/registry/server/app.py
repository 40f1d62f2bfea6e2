"""The embedded registry as an aiohttp application, and its entry as a server."""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from engine.registry.server import blobs, errors, listing, manifests, state, uploads
from engine.registry.server.guard import Guard, Open
from engine.registry.server.metrics import Metrics
from engine.registry.server.state import STATE, Limits, State
from engine.registry.server.storage.store import Storage

log = logging.getLogger(__name__)

_API_VERSION = {"Docker-Distribution-API-Version": "registry/2.0"}
_READ_BUFFER = 1 << 20
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(root: Path, *, guard: Guard | None = None, limits: Limits | None = None) -> web.Application:
    """The registry over the files below `root`. Without a guard everyone may do everything.

    Raises Conflict when another registry has `root` open.
    """
    app = web.Application(middlewares=[_observe], client_max_size=0)
    app[STATE] = State(Storage(root), guard or Open(), Metrics(), limits or Limits())
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
    router.add_get("/metrics", _metrics, name="metrics")
    router.add_get("/healthz", _healthy, name="healthz")


async def _base(request: web.Request) -> web.Response:
    await state.of(request).guard.login(request)
    return web.Response(body=b"{}", content_type="application/json")


async def _metrics(request: web.Request) -> web.Response:
    registry = state.of(request)
    body = await asyncio.to_thread(registry.metrics.render, registry.storage)
    return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


async def _healthy(request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


@web.middleware
async def _observe(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Turns refusals into the spec's JSON, adds the version header, counts."""
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
    except OSError as error:
        log.exception("%s %s failed", request.method, request.path)
        response = errors.RegistryError(507, "UNKNOWN", f"the registry's disk failed: {error.strerror}").response()
    response.headers.update(_API_VERSION)
    if not request.content.is_eof():
        # A refusal while the body is still coming: reading the rest of a large blob would help nobody.
        response.force_close()
    resource = request.match_info.route.resource
    route = (resource.name if resource is not None else None) or "none"
    request.app[STATE].metrics.observe(request.method, route, response.status, time.perf_counter() - began)
    return response


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


async def serve(
    host: str,
    port: int,
    root: Path,
    *,
    guard: Guard | None = None,
    limits: Limits | None = None,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT. What is under way then has five seconds to finish."""
    runner, actual = await start(make_app(root, guard=guard, limits=limits), host, port, tls=tls)
    log.info("registry at %s:%d over %s", host, actual, root)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await stop.wait()
    finally:
        await runner.cleanup()
