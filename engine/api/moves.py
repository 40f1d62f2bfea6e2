"""/moves and /containers/{ref}/move: containers on their way to another engine. Shipway's own part of the API."""

from __future__ import annotations

from aiohttp import web

from engine.api import answer, progress
from engine.api.call import Call
from engine.api.router import Routes
from engine.containers.model import State, TlsPems, from_json, to_json
from engine.containers.move.leaving import Wish
from engine.containers.move.offer import Offer
from engine.errors import InvalidInput

routes = Routes()
_MOST_GONE_BYTES = 1 << 30


@routes.add("POST", "/containers/{ref}/move", streaming=True)
async def move(call: Call) -> web.StreamResponse:
    """Moves a container away. Whoever leaves before the end calls it off, as long as that can be done."""
    containers = call.rooms.containers
    container = containers.get(call.params["ref"])
    body = await call.json()
    tls = body.get("Tls")
    wish = Wish(
        host=_text(body, "Host"),
        tls=from_json(TlsPems, tls) if tls else None,
        copy=bool(body.get("Copy")),
        start=bool(body.get("Start", True)),
        use_volumes=bool(body.get("UseVolumes")),
    )

    async def work(say: progress.Say) -> None:
        moved = await containers.outgoing.move(container, wish, lambda words: say({"status": words}))
        say({"status": f"{container.name} is at {wish.host}", "aux": {"Id": moved, "Host": wish.host}})

    return await progress.stream(call, work)


@routes.add("POST", "/containers/{ref}/move/abort")
async def abort(call: Call) -> web.StreamResponse:
    container = call.container()
    await call.rooms.containers.outgoing.abort(container, force=call.flag("force"))
    return answer.empty()


@routes.add("POST", "/moves")
async def offer(call: Call) -> web.StreamResponse:
    found = await call.rooms.containers.incoming.offer(from_json(Offer, await call.json()))
    return answer.json(to_json(found), 201)


@routes.add("GET", "/moves/{move}")
async def state(call: Call) -> web.StreamResponse:
    return answer.json(call.rooms.containers.incoming.state(call.params["move"]))


@routes.add("PUT", "/moves/{move}/blobs/{digest}")
async def blob(call: Call) -> web.StreamResponse:
    await call.rooms.containers.incoming.blob(call.params["move"], call.params["digest"], call.file())
    return answer.empty()


@routes.add("POST", "/moves/{move}/container")
async def create(call: Call) -> web.StreamResponse:
    await call.rooms.containers.incoming.create(call.params["move"])
    return answer.empty(201)


@routes.add("POST", "/moves/{move}/trees/{tree}/gone")
async def gone(call: Call) -> web.StreamResponse:
    names = await call.body(_MOST_GONE_BYTES)
    await call.rooms.containers.incoming.gone(call.params["move"], call.params["tree"], names)
    return answer.empty()


@routes.add("PUT", "/moves/{move}/trees/{tree}")
async def put(call: Call) -> web.StreamResponse:
    await call.rooms.containers.incoming.put(call.params["move"], call.params["tree"], call.file())
    return answer.empty()


@routes.add("POST", "/moves/{move}/start")
async def start(call: Call) -> web.StreamResponse:
    body = await call.json()
    ready = await call.rooms.containers.incoming.start(
        call.params["move"], from_json(State, body.get("State") or {}), start=bool(body.get("Start"))
    )
    return answer.json({"Ready": ready})


@routes.add("POST", "/moves/{move}/commit")
async def commit(call: Call) -> web.StreamResponse:
    await call.rooms.containers.incoming.commit(call.params["move"])
    return answer.empty()


@routes.add("DELETE", "/moves/{move}")
async def discard(call: Call) -> web.StreamResponse:
    await call.rooms.containers.incoming.discard(call.params["move"])
    return answer.empty()


def _text(body: dict[str, object], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidInput(f"{name} is missing")
    return value
