"""The engine itself: ping, version, info, events, disk usage, login."""

from __future__ import annotations

import asyncio
import os
import platform
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from importlib.metadata import version as package_version
from typing import Any

from aiohttp import web

from engine.api import answer, hostinfo, negotiate
from engine.api.call import Call
from engine.api.images import summary as image_summary
from engine.api.router import Routes
from engine.containers import times
from engine.containers.events import Event
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


@routes.add("GET", "/version")
async def version(call: Call) -> web.StreamResponse:
    engine = package_version("shipway")
    newest, oldest = negotiate.text(negotiate.NEWEST), negotiate.text(negotiate.OLDEST)
    kernel = platform.release()
    return answer.json(
        {
            "Platform": {"Name": "Shipway Engine"},
            "Components": [
                {
                    "Name": "Engine",
                    "Version": engine,
                    "Details": {
                        "ApiVersion": newest,
                        "Arch": hostinfo.architecture(),
                        "BuildTime": "",
                        "Experimental": "false",
                        "GitCommit": "",
                        "GoVersion": f"python{platform.python_version()}",
                        "KernelVersion": kernel,
                        "MinAPIVersion": oldest,
                        "Os": "linux",
                    },
                }
            ],
            "Version": engine,
            "ApiVersion": newest,
            "MinAPIVersion": oldest,
            "GitCommit": "",
            "GoVersion": f"python{platform.python_version()}",
            "Os": "linux",
            "Arch": hostinfo.architecture(),
            "KernelVersion": kernel,
            "BuildTime": "",
        }
    )


@routes.add("GET", "/info")
async def info(call: Call) -> web.StreamResponse:
    rooms = call.rooms
    states = [container.state.status for container in rooms.containers.list(all=True)]
    images = await asyncio.to_thread(rooms.images.list)
    pretty, release = hostinfo.operating_system()
    config = rooms.config
    return answer.json(
        {
            "ID": f"{config.instance}",
            "Containers": len(states),
            "ContainersRunning": states.count("running"),
            "ContainersPaused": states.count("paused"),
            "ContainersStopped": len(states) - states.count("running") - states.count("paused"),
            "Images": len(images),
            "Driver": "overlay2",
            "DriverStatus": [["Backing Filesystem", _filesystem(str(config.data_root))]],
            "Plugins": {
                "Volume": ["local"],
                "Network": ["bridge", "host", "null"],
                "Authorization": None,
                "Log": ["json-file", "none"],
            },
            "MemoryLimit": True,
            "SwapLimit": True,
            "CpuCfsPeriod": True,
            "CpuCfsQuota": True,
            "CPUShares": True,
            "CPUSet": True,
            "PidsLimit": True,
            "IPv4Forwarding": True,
            "BridgeNfIptables": False,
            "BridgeNfIp6tables": False,
            "Debug": False,
            "NFd": hostinfo.file_descriptors(),
            "OomKillDisable": hostinfo.cgroup_version() == "1",
            "NGoroutines": threading.active_count(),
            "SystemTime": times.rfc3339(times.now()),
            "LoggingDriver": "json-file",
            "CgroupDriver": "cgroupfs",
            "CgroupVersion": hostinfo.cgroup_version(),
            "NEventsListener": 0,
            "KernelVersion": platform.release(),
            "OperatingSystem": pretty,
            "OSVersion": release,
            "OSType": "linux",
            "Architecture": platform.machine(),
            "IndexServerAddress": "https://index.docker.io/v1/",
            "RegistryConfig": {
                "AllowNondistributableArtifactsCIDRs": None,
                "AllowNondistributableArtifactsHostnames": None,
                "InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8"],
                "IndexConfigs": {
                    name: {"Name": name, "Mirrors": [], "Secure": False, "Official": False}
                    for name in config.insecure_registries
                },
                "Mirrors": list(config.registry_mirrors),
            },
            "NCPU": os.cpu_count() or 1,
            "MemTotal": hostinfo.memory_bytes(),
            "GenericResources": None,
            "DockerRootDir": str(config.data_root),
            "HttpProxy": os.environ.get("HTTP_PROXY", ""),
            "HttpsProxy": os.environ.get("HTTPS_PROXY", ""),
            "NoProxy": os.environ.get("NO_PROXY", ""),
            "Name": socket.gethostname(),
            "Labels": [f"{key}={value}" if value else key for key, value in config.labels.items()],
            "ExperimentalBuild": False,
            "ServerVersion": package_version("shipway"),
            "Runtimes": {"shipway": {"path": "shipway"}},
            "DefaultRuntime": "shipway",
            "Swarm": {"LocalNodeState": "inactive", "ControlAvailable": False, "Error": ""},
            "LiveRestoreEnabled": config.live_restore,
            "Isolation": "",
            "InitBinary": "",
            "ContainerdCommit": {"ID": "", "Expected": ""},
            "RuncCommit": {"ID": "", "Expected": ""},
            "InitCommit": {"ID": "", "Expected": ""},
            "SecurityOptions": ["name=seccomp,profile=builtin", "name=userns", "name=cgroupns"],
            "DefaultAddressPools": [{"Base": config.default_address_pool, "Size": 22}],
            "Warnings": None,
        }
    )


def _filesystem(path: str) -> str:
    """The kind of file system that `path` is on."""
    best = ("", "unknown")
    with open("/proc/self/mounts", encoding="utf-8", errors="replace") as mounts:
        for line in mounts:
            _, where, kind, *_ = line.split(" ")
            if (path == where or path.startswith(where.rstrip("/") + "/")) and len(where) >= len(best[0]):
                best = (where, kind)
    return best[1]


@routes.add("GET", "/plugins")
async def plugins(call: Call) -> web.StreamResponse:
    return answer.json([])


@routes.add("POST", "/auth")
async def login(call: Call) -> web.StreamResponse:
    body = await call.json()
    auth = Auth(body.get("username") or "", body.get("password") or "", body.get("identitytoken") or "")
    await registry_login(call.rooms.registry, body.get("serveraddress") or "", auth)
    return answer.json({"Status": "Login Succeeded", "IdentityToken": ""})


@routes.add("GET", "/events", streaming=True)
async def events(call: Call) -> web.StreamResponse:
    wanted = call.filters()
    since, until = times.parse_since(call.text("since")), times.parse_since(call.text("until"))
    if since and until and since > until:
        raise InvalidInput("`since` time cannot be after `until` time")
    found = call.rooms.events.subscribe(since=since, until=until, wanted=lambda event: _event_fits(event, wanted))

    async def shown() -> AsyncIterator[dict[str, Any]]:
        async with aclosing(found) as source:  # type: ignore[type-var]
            async for event in source:
                yield event.json()

    return await answer.json_lines(call, shown())


def _event_fits(event: Event, wanted: dict[str, list[str]]) -> bool:
    def named(kind: str, values: list[str]) -> bool:
        """Whether the event is about one of the named things."""
        if kind == "image":
            image = event.attributes.get("image", event.attributes.get("name", ""))
            return any(value in {event.actor, image, image.rpartition(":")[0]} for value in values)
        return event.kind == kind and any(
            event.actor.startswith(value) or event.attributes.get("name") == value for value in values
        )

    for name, values in wanted.items():
        if not values:
            continue
        if name == "type":
            fits = event.kind in values
        elif name == "event":
            fits = any(event.action == value or event.action.startswith(f"{value}:") for value in values)
        elif name == "label":
            pairs = {f"{key}={value}" for key, value in event.attributes.items()} | set(event.attributes)
            fits = all(value in pairs for value in values)
        elif name in {"container", "image", "network", "volume", "daemon"}:
            fits = named(name, values)
        elif name == "scope":
            fits = "local" in values
        else:
            raise InvalidInput(f"invalid filter '{name}'")
        if not fits:
            return False
    return True


@routes.add("GET", "/system/df")
async def disk_usage(call: Call) -> web.StreamResponse:
    rooms = call.rooms
    kinds = set(call.texts("type")) or {"container", "image", "volume", "build-cache"}
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
        found = await asyncio.to_thread(rooms.images.list)
        used = [container.image for container in containers]
        shown["Images"] = [image_summary(image) | {"Containers": used.count(image.id)} for image in found]
        shown["LayersSize"] = sum(image.size for image in found)
    if "container" in kinds:
        for container in containers:
            own, whole = await rooms.containers.inspect_size(container.id)
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
