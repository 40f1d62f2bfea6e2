"""What this engine is: /version and /info."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import socket
import threading
from collections.abc import Sequence
from importlib.metadata import version as package_version
from typing import Any

from aiohttp import web

from engine.api import answer, hostinfo, negotiate
from engine.api.call import Call
from engine.api.router import Routes
from engine.containers import times
from engine.kernel.cgroup.offered import offered

routes = Routes()
# Read once: while the package is being replaced nobody knows it.
_OWN_VERSION = package_version("shipway")


@routes.add("GET", "/version")
async def version(call: Call) -> web.StreamResponse:
    engine = _OWN_VERSION
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
    limits = offered()
    return answer.json(
        {
            "ID": hostinfo.engine_id(config.instance),
            "Containers": len(states),
            "ContainersRunning": states.count("running"),
            "ContainersPaused": states.count("paused"),
            "ContainersStopped": len(states) - states.count("running") - states.count("paused"),
            "Images": len(images),
            "Driver": "overlay2",
            "DriverStatus": [
                ["Backing Filesystem", _filesystem(str(config.data_root))],
                ["Supports d_type", "true"],
                ["User namespaces", str(rooms.containers.user_namespaces).lower()],
            ],
            "Plugins": {
                "Volume": ["local"],
                "Network": ["bridge", "host", "null"],
                "Authorization": None,
                "Log": ["json-file", "local", "none"],
            },
            "MemoryLimit": limits.memory,
            "SwapLimit": limits.swap,
            "CpuCfsPeriod": limits.cpu_quota,
            "CpuCfsQuota": limits.cpu_quota,
            "CPUShares": limits.cpu_shares,
            "CPUSet": limits.cpuset,
            "PidsLimit": limits.pids,
            "IPv4Forwarding": True,
            "BridgeNfIptables": False,
            "BridgeNfIp6tables": False,
            "Debug": logging.getLogger().isEnabledFor(logging.DEBUG),
            "NFd": hostinfo.file_descriptors(),
            "OomKillDisable": limits.oom_kill_disable,
            "NGoroutines": threading.active_count(),
            "SystemTime": times.rfc3339(times.now()),
            "LoggingDriver": "json-file",
            "CgroupDriver": "cgroupfs",
            "CgroupVersion": hostinfo.cgroup_version(),
            "NEventsListener": rooms.events.listeners,
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
                    "docker.io": _index("docker.io", secure=True, mirrors=config.registry_mirrors),
                    **{name: _index(name, secure=False) for name in config.insecure_registries},
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
            "ServerVersion": _OWN_VERSION,
            # runc by name stands for the only runtime there is.
            "Runtimes": {name: {"path": "shipway"} for name in ("shipway", "runc", "io.containerd.runc.v2")},
            "DefaultRuntime": "shipway",
            "Swarm": {
                "NodeID": "",
                "NodeAddr": "",
                "LocalNodeState": "inactive",
                "ControlAvailable": False,
                "Error": "",
                "RemoteManagers": None,
            },
            "LiveRestoreEnabled": config.live_restore,
            "Isolation": "",
            "InitBinary": "",
            "ContainerdCommit": {"ID": "", "Expected": ""},
            "RuncCommit": {"ID": "", "Expected": ""},
            "InitCommit": {"ID": "", "Expected": ""},
            "SecurityOptions": [
                "name=seccomp,profile=builtin",
                *(["name=userns"] if rooms.containers.user_namespaces else []),
                "name=cgroupns",
            ],
            "CDISpecDirs": [],
            "Warnings": [f"WARNING: {one}" for one in await rooms.networks.warnings()] or None,
        }
    )


def _index(name: str, *, secure: bool, mirrors: Sequence[str] = ()) -> dict[str, Any]:
    return {"Name": name, "Mirrors": list(mirrors), "Secure": secure, "Official": name == "docker.io"}


def _filesystem(path: str) -> str:
    """The kind of file system that `path` is on."""
    best = ("", "unknown")
    with open("/proc/self/mounts", encoding="utf-8", errors="replace") as mounts:
        for line in mounts:
            _, where, kind, *_ = line.split(" ")
            if (path == where or path.startswith(where.rstrip("/") + "/")) and len(where) >= len(best[0]):
                best = (where, kind)
    return best[1]
