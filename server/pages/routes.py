"""The pages' addresses. `/live/…` of each is its stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from server.api.common import conductor_of, number_of, query_int
from server.live import Feed
from server.pages import home, logs, run, service
from server.pages.stream import Made, Maker, follow
from server.pages.templates import STATIC, render
from server.pages.view import Load

_NEVER_STORED = {"Cache-Control": "no-store"}


async def home_page(request: Request) -> Response:
    return await _page(request, "home", home.load, "/live")


async def home_live(request: Request) -> Response:
    return await _stream(request, "home", home.load)


async def service_page(request: Request) -> Response:
    name = request.path_params["service"]
    return await _page(request, f"service {name}", service.loads(name), f"/live/services/{quote(name)}")


async def service_live(request: Request) -> Response:
    name = request.path_params["service"]
    return await _stream(request, f"service {name}", service.loads(name))


async def run_page(request: Request) -> Response:
    number, wanted = number_of(request, "run"), request.query_params.get("stage")
    load = run.loads(number, wanted)
    made = await _maker(request).make(f"run {number} {wanted}", load)
    shown = made.view.values["stage"]
    store = conductor_of(request).store
    lines = await run_in_threadpool(logs.last_lines, store, made.view.values["run"], shown)
    query = {"shown": shown.name if shown else "", "after": lines[-1].id if lines else 0}
    if wanted is not None:
        query["stage"] = wanted
    return _html(made, f"/live/runs/{number}?{urlencode(query)}", lines=lines, most=logs.SHOWN)


async def run_live(request: Request) -> Response:
    number, wanted = number_of(request, "run"), request.query_params.get("stage")
    tail = logs.Tail.resumed(
        conductor_of(request).store,
        number,
        request.query_params.get("shown", ""),
        query_int(request, "after", 0),
        request.headers.get("last-event-id", ""),
    )
    return await _stream(request, f"run {number} {wanted}", run.loads(number, wanted), tail)


async def _page(request: Request, key: str, load: Load, live: str) -> Response:
    return _html(await _maker(request).make(key, load), live)


def _html(made: Made, live: str, **more: Any) -> Response:
    values = {**made.view.values, **more, "live": live, "over": made.view.over}
    return HTMLResponse(render(f"{made.view.name}.html", values), headers=_NEVER_STORED)


async def _stream(request: Request, key: str, load: Load, tail: logs.Tail | None = None) -> Response:
    maker, feed = _maker(request), request.app.state.feed
    await maker.make(key, load)  # what is not there is an error before anything was said

    async def events() -> AsyncIterator[str]:
        yield "retry: 1000\n\n"
        async for said, made in follow(maker, feed, key, load):
            yield said
            if tail is not None:
                async for news in tail.news(made.view.values["stage"]):
                    yield news
            if made.view.over:
                yield "event: end\ndata:\n\n"

    headers = {**_NEVER_STORED, "X-Accel-Buffering": "no"}
    return StreamingResponse(events(), media_type="text/event-stream", headers=headers)


def _maker(request: Request) -> Maker:
    state = request.app.state
    if not hasattr(state, "maker"):
        feed: Feed = state.feed
        state.maker = Maker(conductor_of(request), feed)
    maker: Maker = state.maker
    return maker


def failed(_request: Request, status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error as a page."""
    return HTMLResponse(render("failed.html", {"status": status, "text": text}), status, headers)


class _Static(StaticFiles):
    """Files whose address says which version they are: a browser never asks twice."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        named = bool(scope["query_string"]) and response.status_code == 200
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if named else "no-cache"
        return response


routes: list[BaseRoute] = [
    Route("/", home_page),
    Route("/live", home_live),
    Route("/runs/{run}", run_page),
    Route("/live/runs/{run}", run_live),
    Route("/services/{service}", service_page),
    Route("/live/services/{service}", service_live),
    Mount("/static", _Static(directory=STATIC)),
]
