"""The web application: every address, what is opened and closed around it, and what each error looks like.

| error | status |
|---|---|
| `NotFound`, `Conflict`, `LeaseLost`, `Busy`, … | as `pipeline.wire.ERRORS` says, for workers read the same table |
| `DefinitionErrors` | 422 |
| `BadRequest` | 400 |
| anything unforeseen | 500; its text goes to the log only |

The API and the hooks answer errors as `{"error": TEXT, "kind": KIND}`, the pages as a page.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from pipeline.definition.problems import DefinitionErrors
from pipeline.errors import PipelineError
from pipeline.settings import Settings
from pipeline.store import open_store
from pipeline.wire import kind_of
from server import pages
from server.access import ChangesNeedLeave
from server.api import logs, runs, services, workers
from server.api.common import BadRequest
from server.conductor import Conductor
from server.dispatch import Dispatcher
from server.headers import HEADERS, SecurityHeaders
from server.health import healthz, readyz
from server.hooks import generic, github
from server.hooks.receive import receive
from server.live import Feed
from server.metrics import metrics
from server.tokens import worker_token


def create_app(settings: Settings, dispatcher: Dispatcher) -> Starlette:
    """The application. Its store, conductor and feed live as long as its lifespan; the dispatcher is closed too."""
    feed = Feed()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        feed.attach()
        store = await run_in_threadpool(
            open_store,
            settings.database,
            lease_seconds=settings.lease_seconds,
            registry=settings.registry_url,
            log_size=settings.log_size,
            worker_patience=settings.worker_patience,
            secrets_folder=settings.secrets_folder,
        )
        app.state.store = store
        conductor = app.state.conductor = Conductor(settings, store, dispatcher, feed)
        conductor.start()
        try:
            yield
        finally:
            await run_in_threadpool(conductor.stop)
            store.close()
            dispatcher.close()

    app = Starlette(
        routes=routes(settings),
        middleware=[Middleware(SecurityHeaders)],
        exception_handlers={
            PipelineError: _answer,
            BadRequest: _answer,
            HTTPException: _answer,
            Exception: _answer,
        },
        lifespan=lifespan,
    )
    app.state.settings = settings
    app.state.feed = feed
    app.state.worker_token = worker_token(settings)
    return app


def routes(settings: Settings) -> list[BaseRoute]:
    api = [*runs.routes, *logs.routes, *services.routes]
    return [
        *pages.routes,
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", metrics),
        Route("/hooks/generic", functools.partial(receive, hook=generic), methods=["POST"]),
        Route("/hooks/github", functools.partial(receive, hook=github), methods=["POST"]),
        Mount("/api/v1/worker", routes=workers.routes),
        Mount("/api/v1", routes=api, middleware=[Middleware(ChangesNeedLeave, settings=settings)]),
    ]


async def _answer(request: Request, error: Exception) -> Response:
    status, kind, text = _told(error)
    # An answer to what was unforeseen is made outside of all middleware.
    headers = {**HEADERS, **((error.headers or {}) if isinstance(error, HTTPException) else {})}
    if request.url.path.startswith(("/api/", "/hooks/")):
        return _json(status, kind, text, headers)
    return pages.failed(request, status, text, headers)


def _told(error: Exception) -> tuple[int, str, str]:
    """Status, kind and the line for people."""
    match error:
        case DefinitionErrors():
            return 422, "definition", str(error)
        case PipelineError():
            kind, status = kind_of(error)
            return status, kind, str(error)
        case BadRequest():
            return 400, "request", str(error)
        case HTTPException(status_code=404):
            return 404, "not_found", "there is nothing at this address"
        case HTTPException():
            return error.status_code, "request", error.detail
        case _:
            return 500, "internal", "the server failed: its log says why"


def _json(status: int, kind: str, text: str, headers: Mapping[str, str] | None) -> Response:
    body: dict[str, Any] = {"error": text, "kind": kind}
    return JSONResponse(body, status, headers=headers)
