"""The engine itself: ping, login, disk usage."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from aiohttp import web

from engine.api import answer, imagejson
from engine.api.call import Call
from engine.api.router import Routes
from engine.errors import InvalidInput
from engine.registry.client import Auth
from engine.registry.client import login as registry_login

routes = Routes()


@routes.add("GET", "/_ping")
@routes.add("HEAD", "/_ping")
async def ping(call: Call) -> web.StreamResponse:
    response = answer.plain("OK" if call.request.method == "GET" else "")
    response.headers["Cache-Control"] = "no-cache, no-store, must-revalidate"
    response.headers["Pragma"] = "no-cache"
    # 1 is the classic builder: what `docker build` uses unless told otherwise.
    response.headers["Builder-Version"] = "1"
    response.headers["Swarm"] = "inactive"
    return response


@routes.add("GET", "/plugins")
async def plugins(call: Call) -> web.StreamResponse:
    return answer.json([])


@routes.add("POST", "/auth")
async def login(call: Call) -> web.StreamResponse:
    body = await call.json()
    auth = Auth(body.get("username") or "", body.get("password") or "", body.get("identitytoken") or "")
    await registry_login(call.rooms.registry, body.get("serveraddress") or "", auth)
    return answer.json({"Status": "Login Succeeded", "IdentityToken": ""})


_KINDS = frozenset({"container", "image", "volume", "build-cache"})


@routes.add("GET", "/system/df")
async def disk_usage(call: Call) -> web.StreamResponse:
    rooms = call.rooms
    kinds = set(call.texts("type")) or _KINDS
    if unknown := kinds - _KINDS:
        raise InvalidInput(f"unknown object type: {min(unknown)}")
    shown: dict[str, Any] = {
        "LayersSize": 0,
        "Images": [],
        "Containers": [],
        "Volumes": [],
        "BuildCache": [],
        "BuilderSize": 0,
    }
    containers = rooms.containers.list(all=True)
    if "image" in kinds:
        used = [container.image for container in containers]

        def look() -> tuple[list[dict[str, Any]], int]:
            return imagejson.usage(rooms.images, rooms.images.list(), used)

        shown["Images"], shown["LayersSize"] = await asyncio.to_thread(look)
    if "container" in kinds:
        for container in containers:
            own, whole = await rooms.containers.files.sizes(container)
            shown["Containers"].append(rooms.containers.summary(container) | {"SizeRw": own, "SizeRootFs": whole})
    if "volume" in kinds:
        for volume in rooms.volumes.list():
            users = sum(any(mount.name == volume.name for mount in container.mounts) for container in containers)
            size = await asyncio.to_thread(_folder_size, volume.mountpoint)
            usage = {"Size": size, "RefCount": users}
            shown["Volumes"].append(rooms.volumes.json(volume) | {"UsageData": usage})
    return answer.json(shown)


def _folder_size(path: str) -> int:
    """Bytes on disk below `path`."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total
