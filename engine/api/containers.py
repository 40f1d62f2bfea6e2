"""/containers: what a container is and its life."""

from __future__ import annotations

import asyncio

from aiohttp import web

from engine.api import answer
from engine.api.call import Call
from engine.api.errors import NotModified
from engine.api.negotiate import Version
from engine.api.router import Routes
from engine.containers import resources, validation
from engine.containers.hostconfig import HostConfig, Limits, RestartPolicy
from engine.containers.model import ContainerConfig, NetworkingConfig, from_json
from engine.containers.waiting import WaitCondition
from engine.errors import Conflict, InvalidInput, NotFound
from engine.images.descriptor import Platform

routes = Routes()
_OWN_IPC, _OWN_CGROUPS, _MANY_NETWORKS, _ANNOTATIONS = (1, 40), (1, 41), (1, 44), (1, 46)
"""The versions since when containers have IPC and cgroup namespaces of their own, may be made on several networks, and
are listed with their annotations."""
_CONDITIONS: dict[str, WaitCondition] = {
    "": "not-running",
    "not-running": "not-running",
    "next-exit": "next-exit",
    "removed": "removed",
}


@routes.add("GET", "/containers/json")
async def list_(call: Call) -> web.StreamResponse:
    found = call.rooms.containers.list(all=call.flag("all"), filters=call.filters(), limit=call.number("limit") or 0)
    shown = [call.rooms.containers.summary(container) for container in found]
    if call.version < _ANNOTATIONS:
        for summary in shown:
            summary["HostConfig"].pop("Annotations", None)
    if call.flag("size"):
        for container, summary in zip(found, shown, strict=True):
            summary["SizeRw"], summary["SizeRootFs"] = await call.rooms.containers.files.sizes(container)
    return answer.json(shown)


@routes.add("POST", "/containers/create")
async def create(call: Call) -> web.StreamResponse:
    body = await call.json()
    host_config = body.pop("HostConfig", None)
    networking = body.pop("NetworkingConfig", None)
    config = from_json(ContainerConfig, body)
    if call.text("platform"):
        await asyncio.to_thread(_check_platform, call, config.image)
    wanted = from_json(HostConfig, {} if host_config is None else host_config)
    discarded = resources.discard(wanted)
    networks = from_json(NetworkingConfig, {} if networking is None else networking)
    _as_of_old(call.version, wanted, networks)
    container = await call.rooms.containers.create(
        call.text("name") or None,
        config,
        wanted,
        networks,
    )
    return answer.json({"Id": container.id, "Warnings": [*discarded, *validation.warnings(container.host_config)]}, 201)


def _as_of_old(version: Version, host_config: HostConfig, networking: NetworkingConfig) -> None:
    """What older clients say by silence. Raises InvalidInput."""
    if version < _MANY_NETWORKS and len(networking.endpoints_config) > 1:
        raise InvalidInput("Container cannot be created with multiple network endpoints")
    if version < _OWN_IPC:
        host_config.ipc_mode = host_config.ipc_mode or "shareable"
    if version < _OWN_CGROUPS:
        host_config.cgroupns_mode = host_config.cgroupns_mode or "host"


def _check_platform(call: Call, name: str) -> None:
    """NotFound makes clients pull the image for the platform they want."""
    wanted = Platform.parse(call.text("platform"))
    image = call.rooms.images.get(name)
    found = Platform(image.config.architecture, image.config.os, image.config.variant or None)
    if not wanted.runs(found):
        raise NotFound(
            f"image with reference {name} was found but does not match the specified platform: "
            f"wanted {wanted}, actual: {found}"
        )


@routes.add("GET", "/containers/{ref:link}/json")
async def inspect(call: Call) -> web.StreamResponse:
    shown = call.rooms.containers.inspect(call.params["ref"])
    if call.flag("size"):
        shown["SizeRw"], shown["SizeRootFs"] = await call.rooms.containers.files.sizes(call.container())
    return answer.json(shown)


@routes.add("DELETE", "/containers/{ref:link}")
async def remove(call: Call) -> web.StreamResponse:
    """With `link` only the name that is given goes: that of a link, NAME/ALIAS."""
    ref, containers = call.params["ref"], call.rooms.containers
    if not call.flag("link"):
        await containers.remove(ref, force=call.flag("force"), volumes=call.flag("v"))
        return answer.empty()
    owner, slash, alias = ref.partition("/")
    if not slash:
        raise Conflict("Conflict, cannot remove the default link name of the container")
    await containers.unlink(owner, alias)
    return answer.empty()


@routes.add("POST", "/containers/prune")
async def prune(call: Call) -> web.StreamResponse:
    removed, freed = await call.rooms.containers.prune(call.filters())
    call.rooms.events.pruned("container", freed)
    return answer.json({"ContainersDeleted": removed or None, "SpaceReclaimed": freed})


@routes.add("POST", "/containers/{ref:link}/start")
async def start(call: Call) -> web.StreamResponse:
    if call.container().state.alive:
        raise NotModified("running already")
    with call.rooms.metrics.container_start.time():
        started = await call.rooms.containers.start(call.params["ref"])
    if not started:
        raise NotModified("running already")
    return answer.empty()


@routes.add("POST", "/containers/{ref:link}/stop")
async def stop(call: Call) -> web.StreamResponse:
    if not call.container().state.running:
        raise NotModified("stopped already")
    if not await call.rooms.containers.stop(call.params["ref"], call.number("t"), call.text("signal") or None):
        raise NotModified("stopped already")
    return answer.empty()


@routes.add("POST", "/containers/{ref:link}/restart")
async def restart(call: Call) -> web.StreamResponse:
    await call.rooms.containers.restart(call.params["ref"], call.number("t"), call.text("signal") or None)
    return answer.empty()


@routes.add("POST", "/containers/{ref:link}/kill")
async def kill(call: Call) -> web.StreamResponse:
    ref = call.params["ref"]
    try:
        await call.rooms.containers.kill(ref, call.text("signal") or "KILL")
    except (Conflict, InvalidInput, NotFound) as error:
        raise type(error)(f"cannot kill container: {ref}: {error}") from None
    return answer.empty()


@routes.add("POST", "/containers/{ref:link}/pause")
async def pause(call: Call) -> web.StreamResponse:
    await call.rooms.containers.pause(call.params["ref"])
    return answer.empty()


@routes.add("POST", "/containers/{ref:link}/unpause")
async def unpause(call: Call) -> web.StreamResponse:
    await call.rooms.containers.unpause(call.params["ref"])
    return answer.empty()


@routes.add("POST", "/containers/{ref:link}/rename")
async def rename(call: Call) -> web.StreamResponse:
    await call.rooms.containers.rename(call.params["ref"], call.text("name"))
    return answer.empty()


@routes.add("POST", "/containers/{ref:link}/update")
async def update(call: Call) -> web.StreamResponse:
    body = await call.json()
    policy = from_json(RestartPolicy, body.pop("RestartPolicy") or {})
    warnings = await call.rooms.containers.update(
        call.params["ref"],
        from_json(Limits, body),
        policy if policy.name else None,
    )
    return answer.json({"Warnings": warnings})


@routes.add("POST", "/containers/{ref:link}/wait", streaming=True)
async def wait(call: Call) -> web.StreamResponse:
    """Headers go out as soon as the wait stands: the client starts the container only then."""
    condition = _CONDITIONS.get(call.text("condition"))
    if condition is None:
        raise InvalidInput(f"invalid condition: {call.text('condition')!r}")
    call.container()
    waiting = asyncio.ensure_future(call.rooms.containers.wait(call.params["ref"], condition))
    try:
        await asyncio.sleep(0)  # its first step
        response = await answer.begin(call, "application/json")
        ended = await waiting
    finally:
        waiting.cancel()
    await response.write(b'{"StatusCode":%d}\n' % ended.code)
    await response.write_eof()
    return response


@routes.add("GET", "/containers/{ref:link}/top")
async def top(call: Call) -> web.StreamResponse:
    return answer.json(await call.rooms.containers.usage.top(call.container(), call.text("ps_args", "-ef")))


@routes.add("GET", "/containers/{ref:link}/stats", streaming=True)
async def stats(call: Call) -> web.StreamResponse:
    container, usage = call.container(), call.rooms.containers.usage
    if not call.flag("stream", default=True):
        return answer.json(await usage.stats(container, one_shot=call.flag("one-shot")))
    return await answer.json_lines(call, usage.stats_stream(container))


@routes.add("GET", "/containers/{ref:link}/changes")
async def changes(call: Call) -> web.StreamResponse:
    return answer.json(await call.rooms.containers.files.changes(call.container()))


@routes.add("GET", "/containers/{ref:link}/export", streaming=True)
async def export(call: Call) -> web.StreamResponse:
    pieces = call.rooms.containers.files.export(call.container())
    return await answer.stream(call, "application/octet-stream", pieces)


@routes.add("POST", "/commit")
async def commit(call: Call) -> web.StreamResponse:
    body = await call.json()
    repository, tag = call.text("repo"), call.text("tag")
    reference = f"{repository}:{tag}" if repository and tag else repository or None
    config = from_json(ContainerConfig, body) if body else None
    containers = call.rooms.containers
    image = await containers.files.commit(
        containers.get(call.text("container")),
        reference=reference,
        changes=call.texts("changes"),
        author=call.text("author"),
        comment=call.text("comment"),
        pause=call.flag("pause", default=True),
        config=config,
    )
    return answer.json({"Id": image.id}, 201)
