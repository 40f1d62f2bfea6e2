"""What people see: a page for everything, one a run, one a service."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route


async def home(_request: Request) -> Response:
    return HTMLResponse("<!doctype html><title>Shipway</title><h1>Shipway</h1>")


def failed(_request: Request, status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    return Response(text + "\n", status, dict(headers or {}), media_type="text/plain")


routes: list[BaseRoute] = [Route("/", home)]
