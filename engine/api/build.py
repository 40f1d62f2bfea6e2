"""/build: Dockerfile and context in, image out, told step by step as Docker's classic builder does."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from engine.api import answer, filters, progress
from engine.api.call import Call
from engine.api.credentials import auths_from
from engine.api.router import Routes
from engine.api.transcript import Transcript
from engine.build.context import receive
from engine.build.problems import StepError
from engine.build.request import BuildRequest
from engine.containers import times
from engine.errors import InvalidInput
from engine.images.descriptor import Platform
from engine.images.image import Image
from engine.images.reference import Reference
from engine.registry.client import pull

routes = Routes()


@routes.add("POST", "/build", streaming=True)
async def build(call: Call) -> web.StreamResponse:
    if call.text("version") == "2":
        raise InvalidInput("BuildKit is not part of this engine: set DOCKER_BUILDKIT=0")
    if call.text("remote"):
        raise InvalidInput("building from an address is not supported: clone it, and build the folder")
    auths = auths_from(call)
    rooms = call.rooms
    context = await receive(call.request.content.iter_any(), rooms.config.data_root / "build" / "contexts")

    async def work(say: progress.Say) -> None:
        quiet = call.flag("q")

        async def bring(reference: Reference, platform: Platform | None) -> Image:
            return await pull(
                rooms.registry,
                reference,
                rooms.images,
                platform=platform,
                auth=auths.get(reference.domain),
                progress=progress.Layers(say, rooms.metrics.layer_bytes.labels("in")),
            )

        transcript = Transcript(say, rooms.metrics.build_step, quiet=quiet)
        try:
            image = await rooms.builder.build(_request(call, context), bring, transcript)
        except StepError as error:
            transcript.finish()
            if error.exit_code is None:
                raise
            say(progress.error_message(error, error.exit_code))
            return
        say({"aux": {"ID": image.id}})
        if quiet:
            say({"stream": f"{image.id}\n"})
        for tag in call.texts("t"):
            rooms.events.publish("image", "tag", image.id, {"name": Reference.parse(tag).familiar})

    try:
        return await progress.stream(call, work)
    finally:
        context.close()


def _request(call: Call, context: Any) -> BuildRequest:
    quota, period = call.number("cpuquota") or 0, call.number("cpuperiod") or 100_000
    return BuildRequest(
        context=context,
        dockerfile=call.text("dockerfile") or "Dockerfile",
        tags=tuple(call.texts("t")),
        target=call.text("target"),
        build_args=_pairs(call, "buildargs"),
        labels=_pairs(call, "labels"),
        platform=call.text("platform"),
        no_cache=call.flag("nocache"),
        pull=call.flag("pull"),
        network=call.text("networkmode") or "default",
        extra_hosts=_hosts(call),
        shm_size=call.number("shmsize") or 64 << 20,
        memory=call.number("memory") or 0,
        nano_cpus=max(0, quota * 1_000_000_000 // period),
        cache_from=tuple(call.json_query("cachefrom") or ()),
    )


def _pairs(call: Call, name: str) -> dict[str, str]:
    """A JSON object of strings. An argument without a value is null: the environment's, which is not ours."""
    value = call.json_query(name) or {}
    if not isinstance(value, dict):
        raise InvalidInput(f"{name} must be an object")
    return {str(key): str(item) for key, item in value.items() if item is not None}


def _hosts(call: Call) -> tuple[str, ...]:
    return tuple(host for value in call.texts("extrahosts") for host in value.split(",") if host)


@routes.add("POST", "/build/prune")
async def prune(call: Call) -> web.StreamResponse:
    """`all` or not, what a build would use again goes: it is never part of an image that is here."""
    wanted = call.filters()
    filters.check(wanted, {"until", "unused-for", "id", "parent", "type", "description", "inuse", "shared", "private"})
    ages = [times.duration(age) for name in ("until", "unused-for") for age in wanted.get(name, [])]
    freed = await call.rooms.builder.prune(max(ages, default=0) / 1e9)
    return answer.json({"CachesDeleted": None, "SpaceReclaimed": freed})
