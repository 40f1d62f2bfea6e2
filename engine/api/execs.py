"""/exec: more processes in a running container."""

from __future__ import annotations

from aiohttp import web
from msgspec import Struct

from engine.api import answer, detach
from engine.api.call import Call
from engine.api.connection import Duplex, Taken
from engine.api.converse import converse
from engine.api.frames import frame, media_type
from engine.api.router import Routes
from engine.containers.model import from_json
from engine.errors import InvalidInput, SystemFailure

routes = Routes()


class _Creation(Struct, rename="pascal"):
    """What a client sends to have an execution made."""

    cmd: list[str] = []
    env: list[str] = []
    user: str = ""
    working_dir: str = ""
    privileged: bool = False
    tty: bool = False
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    detach_keys: str = ""
    console_size: list[int] | None = None


class _Start(Struct, rename="pascal"):
    """What a client sends to have it begin."""

    detach: bool = False
    tty: bool = False
    console_size: list[int] | None = None


@routes.add("POST", "/containers/{ref:link}/exec")
async def create(call: Call) -> web.StreamResponse:
    asked = from_json(_Creation, await call.json())
    if not asked.cmd:
        raise InvalidInput("No exec command specified")
    execution = call.rooms.containers.execs.create(
        call.container(),
        asked.cmd,
        env=asked.env,
        user=asked.user,
        working_dir=asked.working_dir,
        privileged=asked.privileged,
        tty=asked.tty,
        stdin=asked.attach_stdin,
        stdout=asked.attach_stdout,
        stderr=asked.attach_stderr,
        detach_keys=detach.parse(asked.detach_keys),
        size=_size(asked.console_size),
    )
    return answer.json({"Id": execution.id}, 201)


@routes.add("POST", "/exec/{id}/start")
async def start(call: Call) -> web.StreamResponse:
    asked = from_json(_Start, await call.json())
    execs = call.rooms.containers.execs
    execution = execs.get(call.params["id"])
    tty = asked.tty
    try:
        session = await execs.start(execution, detach=asked.detach, size=_size(asked.console_size))
    except (InvalidInput, SystemFailure) as error:
        if asked.detach:
            raise
        return await _say(call, f"{error}\r\n".encode(), tty=tty)
    if session is None:
        return answer.empty(200)
    duplex = Duplex.take(call.request, media_type(tty=tty, version=call.version))
    keys = detach.DetachKeys(execution.detach_keys)
    await converse(duplex, session, tty=tty, stdin=execution.stdin, keys=keys, framed=not tty)
    return Taken()


def _size(asked: list[int] | None) -> tuple[int, int] | None:
    """(rows, columns) of a ConsoleSize. Raises InvalidInput."""
    match asked:
        case None:
            return None
        case [rows, columns]:
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
