"""/build: Dockerfile and context in, image out, told step by step as Docker's classic builder does."""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

from engine.api import answer, filters, progress
from engine.api.call import Call
from engine.api.credentials import auths_from
from engine.api.router import Routes
from engine.api.transcript import Transcript
from engine.build.builtinargs import KEEP_GIT_DIR, is_true
from engine.build.problems import StepError
from engine.build.receiving import receive
from engine.build.registrycache import RegistryCaches
from engine.build.remotecontext import RemoteContext
from engine.build.request import ENTITLEMENTS, BuildRequest
from engine.containers import resources, times
from engine.containers.hostconfig import Limits, Ulimit
from engine.containers.model import from_json
from engine.errors import InvalidInput
from engine.images.descriptor import Platform
from engine.images.image import Image
from engine.images.reference import Reference
from engine.registry.client import Auth, pull

routes = Routes()
_CACHE = "SHIPWAY_CACHE"


@routes.add("POST", "/build", streaming=True)
async def build(call: Call) -> web.StreamResponse:
    if call.text("version") == "2":
        raise InvalidInput("BuildKit is not part of this engine: set DOCKER_BUILDKIT=0")
    if call.text("networkmode").startswith("container:"):
        raise InvalidInput("a build can't join a container's network: use host, none, or the name of a network")
    if call.flag("squash"):
        raise InvalidInput("squash is not supported: build in stages, and copy what is wanted into the last one")
    auths = auths_from(call)
    remote = call.text("remote")
    async with _remote(call, remote) if remote else _sent(call) as source:
        return await _build(call, auths, source)


@contextlib.asynccontextmanager
async def _sent(call: Call) -> AsyncIterator[RemoteContext]:
    context = await receive(call.request.content.iter_any(), call.rooms.config.data_root / "build" / "contexts")
    try:
        yield RemoteContext(context)
    finally:
        context.close()


def _remote(call: Call, address: str) -> contextlib.AbstractAsyncContextManager[RemoteContext]:
    keep = is_true(_pairs(call, "buildargs"), KEEP_GIT_DIR)
    return call.rooms.builder.remote_context(address, _ssh(call).get("default"), _secrets(call), keep_git_dir=keep)


async def _build(call: Call, auths: dict[str, Auth], source: RemoteContext) -> web.StreamResponse:
    rooms = call.rooms

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
            caches = RegistryCaches(rooms.registry, rooms.images, auths)
            image = await rooms.builder.build(_request(call, source), bring, transcript, caches)
        except StepError as error:
            transcript.finish()
            if error.exit_code is None:
                raise
            say(progress.error_message(error, error.exit_code))
            return
        if quiet:
            say({"aux": {"ID": image.id}})
            say({"stream": f"{image.id}\n"})
        rooms.events.of_image("create", image)
        for tag in call.texts("t"):
            rooms.events.of_image("tag", image, Reference.parse(tag).familiar)

    return await progress.stream(call, work)


def _request(call: Call, source: RemoteContext) -> BuildRequest:
    build_args = _pairs(call, "buildargs")
    # `docker build` without BuildKit has no option for it: a build argument that no Dockerfile gets to see.
    cached = tuple(name for name in build_args.pop(_CACHE, "").split(",") if name)
    return BuildRequest(
        context=source.context,
        dockerfile_content=source.dockerfile,
        dockerfile=call.text("dockerfile") or "Dockerfile",
        tags=tuple(call.texts("t")),
        target=call.text("target"),
        build_args=build_args,
        labels=_pairs(call, "labels"),
        platform=call.text("platform"),
        no_cache=call.flag("nocache"),
        pull=call.flag("pull"),
        network=call.text("networkmode") or "default",
        extra_hosts=_hosts(call),
        shm_size=call.number("shmsize") or 64 << 20,
        limits=_limits(call),
        security_opt=_names(call, "securityopt"),
        secrets=_secrets(call),
        ssh=_ssh(call),
        entitlements=_entitlements(call),
        cache_from=(*_names(call, "cachefrom"), *cached),
        cache_to=(*_names(call, "cacheto"), *cached),
    )


def _limits(call: Call) -> Limits:
    """Of a step, as of a container. Raises InvalidInput."""
    limits = Limits(
        memory=call.number("memory") or 0,
        memory_swap=call.number("memswap") or 0,
        cpu_shares=call.number("cpushares") or 0,
        cpu_period=call.number("cpuperiod") or 0,
        cpu_quota=call.number("cpuquota") or 0,
        cpuset_cpus=call.text("cpusetcpus"),
        cpuset_mems=call.text("cpusetmems"),
        cgroup_parent=call.text("cgroupparent"),
        ulimits=[from_json(Ulimit, one) for one in call.json_query("ulimits") or ()],
    )
    resources.validate(limits)
    return limits


def _pairs(call: Call, name: str) -> dict[str, str]:
    """A JSON object of strings. An argument without a value is null: the environment's, which is not ours."""
    value = call.json_query(name) or {}
    if not isinstance(value, dict):
        raise InvalidInput(f"{name} must be an object")
    return {str(key): str(item) for key, item in value.items() if item is not None}


def _names(call: Call, name: str) -> tuple[str, ...]:
    """A JSON list of strings, or one name as it is."""
    if not call.text(name).startswith("["):
        return (call.text(name),) if call.text(name) not in ("", "null") else ()
    return tuple(str(item) for item in call.json_query(name) or ())


def _secrets(call: Call) -> dict[str, bytes]:
    """X-Build-Secrets: ids and values, these in base64 once more since they may be any bytes."""
    try:
        return {
            name: base64.b64decode(value, validate=True) for name, value in call.header_json("X-Build-Secrets").items()
        }
    except (TypeError, binascii.Error):
        raise InvalidInput("header X-Build-Secrets: each value must be base64") from None


def _ssh(call: Call) -> dict[str, Path]:
    """X-Build-Ssh: ids and the agents' sockets on the engine's host."""
    return {name: Path(str(path)) for name, path in call.header_json("X-Build-Ssh").items()}


def _entitlements(call: Call) -> frozenset[str]:
    """X-Build-Allow: what `docker buildx build --allow` would say, with commas in between."""
    asked = frozenset(name.strip() for name in call.request.headers.get("X-Build-Allow", "").split(",") if name.strip())
    for name in asked - ENTITLEMENTS:
        raise InvalidInput(f"header X-Build-Allow: {name[:100]!r} is none of {', '.join(sorted(ENTITLEMENTS))}")
    return asked


def _hosts(call: Call) -> tuple[str, ...]:
    return tuple(host for value in call.texts("extrahosts") for host in value.split(",") if host)


@routes.add("POST", "/build/prune")
async def prune(call: Call) -> web.StreamResponse:
    """`all` or not, what a build would use again goes: it is never part of an image that is here."""
    wanted = call.filters()
    filters.check(wanted, {"until", "unused-for", "id", "parent", "type", "description", "inuse", "shared", "private"})
    ages = [times.duration(age) for name in ("until", "unused-for") for age in wanted.get(name, [])]
    freed = await call.rooms.builder.prune(max(ages, default=0) / 1e9)
    call.rooms.events.pruned("builder", freed)
    return answer.json({"CachesDeleted": None, "SpaceReclaimed": freed})
