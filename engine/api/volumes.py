"""/volumes."""

from __future__ import annotations

from aiohttp import web
from msgspec import Struct

from engine.api import answer
from engine.api.call import Call
from engine.api.router import Routes
from engine.containers.model import from_json

routes = Routes()
_NAMED_STAY = (1, 42)
"""Before it, pruning took the named volumes, too."""


class _Creation(Struct, rename="pascal"):
    """What a client sends to have a volume made."""

    name: str = ""
    driver: str = ""
    labels: dict[str, str] = {}
    driver_opts: dict[str, str] = {}


@routes.add("GET", "/volumes")
async def list_(call: Call) -> web.StreamResponse:
    volumes = call.rooms.volumes
    found = [volumes.json(volume) for volume in volumes.list(call.filters())]
    return answer.json({"Volumes": found, "Warnings": []})


@routes.add("POST", "/volumes/create")
async def create(call: Call) -> web.StreamResponse:
    asked = from_json(_Creation, await call.json())
    volumes = call.rooms.volumes
    volume = volumes.create(
        asked.name,
        anonymous=not asked.name,
        driver=asked.driver or "local",
        labels=asked.labels,
        options=asked.driver_opts,
    )
    return answer.json(volumes.json(volume), 201)


@routes.add("GET", "/volumes/{name}")
async def inspect(call: Call) -> web.StreamResponse:
    volumes = call.rooms.volumes
    return answer.json(volumes.json(volumes.get(call.params["name"])))


@routes.add("DELETE", "/volumes/{name}")
async def remove(call: Call) -> web.StreamResponse:
    call.rooms.volumes.remove(call.params["name"], force=call.flag("force"))
    return answer.empty()


@routes.add("POST", "/volumes/prune")
async def prune(call: Call) -> web.StreamResponse:
    wanted = call.filters()
    if call.version < _NAMED_STAY:
        wanted.setdefault("all", ["true"])
    removed, freed = call.rooms.volumes.prune(wanted)
    call.rooms.events.pruned("volume", freed)
    return answer.json({"VolumesDeleted": removed, "SpaceReclaimed": freed})
