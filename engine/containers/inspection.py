"""Containers in Docker's JSON. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.containers import resources, security, times
from engine.containers.model import Container, ContainerPaths, EndpointSettings, MountPoint, State, to_json

_LEFT_OUT = (
    *("Healthcheck", "Shell", "ArgsEscaped", "NetworkDisabled", "MacAddress", "StopSignal"),
    "ExposedPorts",
)
_LEFT_OUT_OF_HOST = ("Annotations", "StorageOpt", "Sysctls", "Mounts", "Tmpfs")
_NULL_IN_HOST = (
    *("Binds", "VolumesFrom", "CapAdd", "CapDrop", "GroupAdd", "ExtraHosts", "SecurityOpt"),
    *("DeviceCgroupRules", "DeviceRequests"),
)
"""What Go writes as null where it is empty, and what it leaves out: scripts look for both."""
_SHM_SIZE = 64 << 20
_SHOWN_MOUNT = ("Type", "Name", "Source", "Destination", "Driver", "Mode", "RW", "Propagation")


def inspect(
    container: Container,
    paths: ContainerPaths,
    *,
    lower: Sequence[str] = (),
    execs: Sequence[str] = (),
    links: Sequence[str] = (),
) -> dict[str, Any]:
    """`GET /containers/{id}/json`."""
    return {
        "Id": container.id,
        "Created": container.created,
        "Path": container.path,
        "Args": container.args,
        "State": state(container.state),
        "Image": container.image,
        "ResolvConfPath": str(paths.resolv),
        "HostnamePath": str(paths.hostname),
        "HostsPath": str(paths.hosts),
        "LogPath": container.log_path,
        "Name": f"/{container.name}",
        "RestartCount": container.restart_count,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": list(execs) or None,
        "HostConfig": _host_config(container) | {"Links": list(links) or None},
        "GraphDriver": {
            "Data": {
                "LowerDir": ":".join(lower),
                "MergedDir": str(paths.merged),
                "UpperDir": str(paths.upper),
                "WorkDir": str(paths.work),
            },
            "Name": "overlay2",
        },
        "Mounts": [mount(point) for point in container.mounts],
        "Config": _config(container),
        "NetworkSettings": network_settings(container),
    }


def _config(container: Container) -> dict[str, Any]:
    shown: dict[str, Any] = to_json(container.config)
    for name in _LEFT_OUT:
        if not shown[name]:
            del shown[name]
    if shown["StopTimeout"] is None:
        del shown["StopTimeout"]
    if "Healthcheck" in shown:
        shown["Healthcheck"] = {name: value for name, value in shown["Healthcheck"].items() if value}
    for name in ("Volumes", "OnBuild"):
        shown[name] = shown[name] or None
    return shown


def _host_config(container: Container) -> dict[str, Any]:
    """With what was decided in place of what was left open."""
    asked = container.host_config
    exposed = asked.privileged or "systempaths=unconfined" in asked.security_opt
    shown: dict[str, Any] = to_json(asked)
    for name in _LEFT_OUT_OF_HOST:
        if not shown[name]:
            del shown[name]
    if shown["Init"] is None:
        del shown["Init"]
    if "Mounts" in shown:
        shown["Mounts"] = [_without_defaults(request) for request in shown["Mounts"]]
    for name in _NULL_IN_HOST:
        shown[name] = shown[name] or None
    shown |= {
        "Runtime": asked.runtime or "shipway",
        "IpcMode": asked.ipc_mode or "private",
        "CgroupnsMode": asked.cgroupns_mode or ("host" if asked.privileged else "private"),
        "ShmSize": asked.shm_size or _SHM_SIZE,
        "MemorySwap": resources.memory_and_swap(asked) or 0,
        "MemorySwappiness": None if asked.memory_swappiness == -1 else asked.memory_swappiness,
        "PidsLimit": asked.pids_limit,
    }
    if exposed:
        shown["MaskedPaths"] = shown["ReadonlyPaths"] = None
    else:
        shown["MaskedPaths"] = security.MASKED if asked.masked_paths is None else asked.masked_paths
        shown["ReadonlyPaths"] = security.READ_ONLY if asked.readonly_paths is None else asked.readonly_paths
    return shown


def _without_defaults(value: dict[str, Any]) -> dict[str, Any]:
    """As Go writes a mount that was asked for: nothing that was not said."""
    inner = {name: _without_defaults(one) if isinstance(one, dict) else one for name, one in value.items()}
    return {name: one for name, one in inner.items() if one}


def state(now: State) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "Status": now.status,
        "Running": now.running,
        "Paused": now.status == "paused",
        "Restarting": now.status == "restarting",
        "OOMKilled": now.oom_killed,
        "Dead": now.status == "dead",
        "Pid": now.pid,
        "ExitCode": now.exit_code,
        "Error": now.error,
        "StartedAt": now.started_at,
        "FinishedAt": now.finished_at,
    }
    if now.health is not None:
        shown["Health"] = to_json(now.health)
    return shown


def mount(point: MountPoint) -> dict[str, Any]:
    whole = to_json(point)
    shown = {name: whole[name] for name in _SHOWN_MOUNT}
    if point.type != "volume":
        del shown["Name"], shown["Driver"]
    return shown


def network_settings(container: Container) -> dict[str, Any]:
    settings = container.network_settings
    default = settings.networks.get("bridge", EndpointSettings())
    ports = {port: [to_json(one) for one in found] if found else None for port, found in settings.ports.items()}
    return {
        "Bridge": "",
        "SandboxID": container.id if settings.sandbox_key else "",
        "SandboxKey": settings.sandbox_key,
        "Ports": ports,
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": default.endpoint_id,
        "Gateway": default.gateway,
        "GlobalIPv6Address": default.global_ipv6_address,
        "GlobalIPv6PrefixLen": default.global_ipv6_prefix_len,
        "IPAddress": default.ip_address,
        "IPPrefixLen": default.ip_prefix_len,
        "IPv6Gateway": default.ipv6_gateway,
        "MacAddress": default.mac_address,
        "Networks": {name: endpoint(one) for name, one in settings.networks.items()},
    }


def endpoint(settings: EndpointSettings) -> dict[str, Any]:
    shown: dict[str, Any] = to_json(settings)
    del shown["DesiredMac"]
    for name in ("Links", "Aliases", "DriverOpts", "DNSNames"):
        shown[name] = shown[name] or None
    return shown


def summary(container: Container, names: Sequence[str] = ()) -> dict[str, Any]:
    """One element of `GET /containers/json`; `names` are those that others have for it."""
    config = container.config
    words = (f"'{argument}'" if " " in argument else argument for argument in container.args)
    command = " ".join([container.path, *words])
    return {
        "Id": container.id,
        "Names": [f"/{container.name}", *names],
        "Image": config.image,
        "ImageID": container.image,
        "Command": command,
        "Created": times.parse_rfc3339(container.created) // 10**9,
        "Ports": ports(container),
        "Labels": config.labels,
        "State": container.state.status,
        "Status": status_line(container.state, times.now()),
        "HostConfig": {
            "NetworkMode": container.host_config.network_mode,
            **({"Annotations": container.host_config.annotations} if container.host_config.annotations else {}),
        },
        "NetworkSettings": {
            "Networks": {name: endpoint(one) for name, one in container.network_settings.networks.items()}
        },
        "Mounts": [mount(point) for point in container.mounts],
    }


def ports(container: Container) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = []
    if not container.state.alive:
        return shown
    for text, published in container.network_settings.ports.items():
        number, _, protocol = text.partition("/")
        base: dict[str, Any] = {"PrivatePort": int(number), "Type": protocol or "tcp"}
        if not published:
            shown.append(base)
        shown += [
            {"IP": one.host_ip, **base, "PublicPort": int(one.host_port)} for one in published or () if one.host_port
        ]
    return shown


def status_line(now: State, at: int) -> str:
    """`Up 5 minutes (healthy)`, `Exited (0) 2 hours ago`; `at` in unix nanoseconds."""
    if now.status in ("running", "paused"):
        up = f"Up {human(at - times.parse_rfc3339(now.started_at))}"
        if now.status == "paused":
            return f"{up} (Paused)"
        if now.health is not None:
            word = "health: starting" if now.health.status == "starting" else now.health.status
            return f"{up} ({word})"
        return up
    since = human(at - times.parse_rfc3339(now.finished_at))
    if now.status == "restarting":
        return f"Restarting ({now.exit_code}) {since} ago"
    if now.status == "removing":
        return "Removal In Progress"
    if now.status == "dead":
        return "Dead"
    if now.finished_at == times.ZERO:
        return "Created"
    return f"Exited ({now.exit_code}) {since} ago"


def human(nanoseconds: int) -> str:
    """A duration in the docker command's words."""
    seconds = max(0, nanoseconds) // 10**9
    minutes, hours = seconds // 60, round(seconds / 3600)
    if seconds < 1:
        return "Less than a second"
    if seconds == 1:
        return "1 second"
    if seconds < 60:
        return f"{seconds} seconds"
    if minutes == 1:
        return "About a minute"
    if minutes < 46:
        return f"{minutes} minutes"
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{seconds // 86400 // 365} years"
