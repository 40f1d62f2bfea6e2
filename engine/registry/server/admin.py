"""`/api/v1`: who sees a repository; holds; collection. JSON in and out, basic credentials where there are accounts."""

from __future__ import annotations

import asyncio
from typing import TypeVar

import msgspec
from aiohttp import web

from engine.images.descriptor import MALFORMED
from engine.registry.server import errors, names, state
from engine.registry.server.receive import read_bounded
from engine.registry.server.storage.collect import GRACE, Collected, Collection, Rule

_MOST = 4 << 20
T = TypeVar("T")


class _Visibility(msgspec.Struct, forbid_unknown_fields=True):
    public: bool


class _Collect(msgspec.Struct, forbid_unknown_fields=True):
    keep: int | None = None
    age: float = 0.0
    grace: float = GRACE
    dry_run: bool = False


def add_routes(router: web.UrlDispatcher) -> None:
    router.add_get("/api/v1/repositories/{name:.+}", show, name="repository")
    router.add_put("/api/v1/repositories/{name:.+}", change, name="repository-change")
    router.add_get("/api/v1/holds", holds, name="holds")
    router.add_put("/api/v1/holds/{holder:[^/]+}", hold, name="hold")
    router.add_post("/api/v1/collect", collect, name="collect")


async def show(request: web.Request) -> web.Response:
    """GET: whether a repository is public."""
    registry, repository = state.of(request), state.repository(request)
    await registry.guard.require(request, repository, "pull")
    registry.storage.require(repository)
    return web.json_response({"name": repository, "public": registry.storage.is_public(repository)})


async def change(request: web.Request) -> web.Response:
    """PUT `{"public": true}`: shows a repository to everyone, or to its group alone."""
    registry, repository = state.of(request), state.repository(request)
    await registry.guard.own(request, repository)
    wanted = await _body(request, _Visibility)
    await asyncio.to_thread(registry.storage.publish, repository, wanted.public)
    return web.json_response({"name": repository, "public": wanted.public})


async def holds(request: web.Request) -> web.Response:
    """GET: every holder and the digests that it holds."""
    registry = state.of(request)
    await registry.guard.administer(request)
    return web.json_response(await asyncio.to_thread(registry.storage.holds.all))


async def hold(request: web.Request) -> web.Response:
    """PUT `["sha256:…"]`: what a holder needs from now on, instead of all that it held; nothing lets it go."""
    registry = state.of(request)
    await registry.guard.administer(request)
    wanted = await _body(request, list[str])
    holder = request.match_info["holder"]
    await asyncio.to_thread(registry.storage.holds.put, holder, [names.digest(digest) for digest in wanted])
    return web.json_response({"holder": holder, "digests": sorted(set(wanted))})


async def collect(request: web.Request) -> web.Response:
    """POST `{"keep", "age", "grace", "dry_run"}`: collects now, and tells what went."""
    registry = state.of(request)
    await registry.guard.administer(request)
    asked = await _body(request, _Collect)
    if (asked.keep is not None and asked.keep < 0) or asked.age < 0 or asked.grace < 0:
        raise errors.RegistryError(400, "UNSUPPORTED", "keep, age and grace can't be negative")
    done = await run(registry, Rule(asked.keep, asked.age, asked.grace), dry_run=asked.dry_run)
    return web.Response(body=msgspec.json.encode(done), content_type="application/json")


async def run(registry: state.State, rule: Rule, *, dry_run: bool = False) -> Collected:
    """One collection at a time."""
    async with registry.collecting:
        done = await asyncio.to_thread(Collection(registry.storage, rule, dry_run=dry_run).run)
    registry.metrics.collected.inc(done.bytes)
    return done


async def _body(request: web.Request, kind: type[T]) -> T:
    too_big = errors.RegistryError(413, "SIZE_INVALID", f"at most {_MOST} bytes")
    try:
        return msgspec.json.decode(await read_bounded(request, _MOST, too_big) or b"{}", type=kind)
    except MALFORMED as error:
        raise errors.RegistryError(400, "UNSUPPORTED", f"malformed request: {error}") from None
