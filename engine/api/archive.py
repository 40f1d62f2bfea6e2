"""/containers/{ref}/archive: `docker cp`."""

from __future__ import annotations

import base64
from typing import IO, Any, cast

import msgspec
from aiohttp import web

from engine.api import answer
from engine.api.call import Call
from engine.api.router import Routes
from engine.errors import InvalidInput

routes = Routes()


def _path(call: Call) -> str:
    path = call.text("path")
    if not path:
        raise InvalidInput("Bad parameter: path cannot be empty")
    return path


def _header(stat: dict[str, Any]) -> dict[str, str]:
    return {"X-Docker-Container-Path-Stat": base64.b64encode(msgspec.json.encode(stat)).decode()}


@routes.add("HEAD", "/containers/{ref:link}/archive")
async def stat(call: Call) -> web.StreamResponse:
    path = _path(call)
    found = await call.rooms.containers.files.stat(call.container(), path)
    return web.Response(headers=_header(found), content_type="application/x-tar")


@routes.add("GET", "/containers/{ref:link}/archive", streaming=True)
async def get(call: Call) -> web.StreamResponse:
    path = _path(call)
    found, tar = await call.rooms.containers.files.get(call.container(), path)
    return await answer.stream(call, "application/x-tar", tar, _header(found))


@routes.add("PUT", "/containers/{ref:link}/archive")
async def put(call: Call) -> web.StreamResponse:
    path = _path(call)
    await call.rooms.containers.files.put(
        call.container(),
        path,
        cast(IO[bytes], call.file()),
        no_overwrite_dir_non_dir=call.flag("noOverwriteDirNonDir"),
        copy_ids=call.flag("copyUIDGID"),
    )
    return answer.empty(200)
