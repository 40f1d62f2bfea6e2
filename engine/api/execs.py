"""/exec: more processes in a running container."""

from __future__ import annotations

from aiohttp import web

from engine.api import answer, detach
from engine.api.call import Call
from engine.api.connection import Duplex, Taken
from engine.api.converse import converse
from engine.api.frames import frame, media_type
from engine.api.router import Routes
from engine.errors import InvalidInput, SystemFailure

routes = Routes()


@routes.add("POST", "/containers/{ref:link}/exec")
async def create(call: Call) -> web.StreamResponse:
    body = await call.json()
    command = body.get("Cmd") or []
    if isinstance(command, str):
        command = [command]
    if not command:
        raise InvalidInput("No exec command specified")
    # docker-py writes it small, and Docker's own reader takes names in any case.
    keys = detach.parse(body.get("DetachKeys") or "")
    size = _size(body.get("ConsoleSize"))
    execution = call.rooms.containers.execs.create(
        call.container(),
        command,
        env=body.get("Env") or (),
        user=body.get("User") or "",
        working_dir=body.get("WorkingDir") or "",
        privileged=bool(body.get("Privileged")),
        tty=bool(body.get("Tty")),
        stdin=bool(body.get("AttachStdin")),
        stdout=bool(body.get("AttachStdout")),
        stderr=bool(body.get("AttachStderr")),
        detach_keys=keys,
        size=size,
    )
    return answer.json({"Id": execution.id}, 201)


@routes.add("POST", "/exec/{id}/start")
async def start(call: Call) -> web.StreamResponse:
    body = await call.json()
    execs = call.rooms.containers.execs
    execution = execs.get(call.params["id"])
    tty = bool(body.get("Tty"))
    detached = bool(body.get("Detach"))
    try:
        session = await execs.start(execution, detach=detached, size=_size(body.get("ConsoleSize")))
    except (InvalidInput, SystemFailure) as error:
        if detached:
            raise
        return await _say(call, f"{error}\r\n".encode(), tty=tty)
    if session is None:
        return answer.empty(200)
    duplex = Duplex.take(call.request, media_type(tty=tty, version=call.version))
    keys = detach.DetachKeys(execution.detach_keys)
    await converse(duplex, session, tty=tty, stdin=execution.stdin, keys=keys, framed=not tty)
    return Taken()


def _size(asked: object) -> tuple[int, int] | None:
    """(rows, columns) of a ConsoleSize. Raises InvalidInput."""
    if asked is None:
        return None
    match asked:
        case [int(rows), int(columns)]:
            return rows, columns
    raise InvalidInput(f"invalid console size {asked!r}: write it as [rows, columns]")


async def _say(call: Call, words: bytes, *, tty: bool) -> web.StreamResponse:
    """What could not be executed says so where its output would be: clients then ask for the exit code."""
    duplex = Duplex.take(call.request, media_type(tty=tty, version=call.version))
    await duplex.write(words if tty else frame("stdout", words))
    return Taken()


@routes.add("POST", "/exec/{id}/resize")
async def resize(call: Call) -> web.StreamResponse:
    rows, columns, execs = call.number("h") or 0, call.number("w") or 0, call.rooms.containers.execs
    execs.resize(execs.get(call.params["id"]), rows, columns)
    return answer.empty(201)


@routes.add("GET", "/exec/{id}/json")
async def inspect(call: Call) -> web.StreamResponse:
    return answer.json(call.rooms.containers.execs.get(call.params["id"]).json())
