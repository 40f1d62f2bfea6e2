"""Which namespaces a container shares: `--network`, `--pid`, `--ipc`, `--uts`, `--cgroupns`, `--userns`."""

from __future__ import annotations

from engine.containers.hostconfig import HostConfig
from engine.containers.model import Container, ContainerConfig, NetworkingConfig
from engine.containers.registry import Registry
from engine.containers.specs import Sharing
from engine.errors import Conflict, InvalidInput

_UNDEFINED = "This would result in undefined behavior"


def container_of(mode: str) -> str | None:
    """X of `container:X`."""
    kind, colon, ref = mode.partition(":")
    return ref if colon and kind == "container" else None


def check(host_config: HostConfig) -> None:
    """Raises InvalidInput for a mode that does not exist."""
    own = {
        "PID": (host_config.pid_mode, ("", "private", "host")),
        "IPC": (host_config.ipc_mode, ("", "none", "private", "shareable", "host")),
        "UTS": (host_config.uts_mode, ("", "private", "host")),
        "cgroup namespace": (host_config.cgroupns_mode, ("", "private", "host")),
        "userns": (host_config.userns_mode, ("", "private", "host")),
    }
    for what, (mode, allowed) in own.items():
        if mode not in allowed and not (what in ("PID", "IPC") and container_of(mode)):
            raise InvalidInput(f"invalid {what} mode: {mode}")


def check_network(config: ContainerConfig, host_config: HostConfig, networking: NetworkingConfig) -> None:
    """Of what was asked for, the image apart: whoever has another's network can't set it up. Raises InvalidInput."""
    mode = host_config.network_mode
    endpoints = networking.endpoints_config.values()
    links = host_config.links or any(each.links for each in endpoints)
    mac_address = config.mac_address or any(each.mac_address for each in endpoints)
    if mode == "host" and links:
        raise InvalidInput(f"conflicting options: host type networking can't be used with links. {_UNDEFINED}")
    if mode == "host" and mac_address:
        raise InvalidInput("conflicting options: mac-address and the network mode")
    if mode in ("container", "container:"):
        raise InvalidInput("invalid network mode: invalid container format container:<name|id>")
    if container_of(mode) is None:
        return
    for asked, what in (
        (config.hostname, "hostname and the network mode"),
        (links, f"container type network can't be used with links. {_UNDEFINED}"),
        (host_config.dns, "dns and the network mode"),
        (host_config.extra_hosts, "custom host-to-IP mapping and the network mode"),
        (mac_address, "mac-address and the network mode"),
        (
            host_config.port_bindings or host_config.publish_all_ports,
            "port publishing and the container type network mode",
        ),
        (config.exposed_ports, "port exposing and the container type network mode"),
    ):
        if asked:
            raise InvalidInput(f"conflicting options: {what}")


def wants_user_namespace(host_config: HostConfig) -> bool:
    """Whether the container gets ids of its own.

    It can't own its user namespace and use the host's network, processes or IPC: their files (/sys, /proc,
    /dev/mqueue) may only be mounted by whoever owns those. `--privileged` means the real root.
    """
    if host_config.userns_mode == "host" or host_config.privileged:
        return False
    return "host" not in (host_config.network_mode, host_config.pid_mode, host_config.ipc_mode)


def joined(host_config: HostConfig) -> list[str]:
    """Names or ids of the containers whose namespaces are wanted."""
    modes = (host_config.network_mode, host_config.pid_mode, host_config.ipc_mode)
    return list(dict.fromkeys(ref for mode in modes if (ref := container_of(mode)) is not None))


def resolve(container: Container, registry: Registry) -> Sharing:
    """The paths to join. Raises Conflict when the other container does not run."""
    host_config = container.host_config

    def mode(value: str, kind: str) -> str:
        ref = container_of(value)
        if ref is None:
            return "host" if value == "host" else ""
        other = registry.get(ref)
        if not other.state.alive or not other.state.pid:
            raise Conflict(f"cannot join {kind} of a non running container: {other.id}")
        return f"/proc/{other.state.pid}/ns/{kind}"

    user = "" if container.id_shift else "host"
    for ref in joined(host_config):
        other = registry.get(ref)
        if other.id_shift and other.id_shift == container.id_shift:
            user = f"/proc/{other.state.pid}/ns/user"
    network = mode(host_config.network_mode, "net")
    donor = container_of(host_config.ipc_mode)
    shm_of = f"/proc/{_ipc_donor(donor, registry).state.pid}/ns/mnt" if donor is not None else ""
    return Sharing(
        network=network,
        pid=mode(host_config.pid_mode, "pid"),
        ipc=mode(host_config.ipc_mode, "ipc"),
        uts="host" if host_config.uts_mode == "host" else "",
        cgroup="host" if host_config.cgroupns_mode == "host" or host_config.privileged else "",
        user=user,
        shm_of=shm_of,
    )


def _ipc_donor(ref: str, registry: Registry) -> Container:
    """Raises InvalidInput for one who does not want to share."""
    donor = registry.get(ref)
    if donor.host_config.ipc_mode != "shareable":
        raise InvalidInput(
            f"cannot join IPC of container {donor.id}: non-shareable IPC "
            "(hint: use IpcMode:shareable for the donor container)"
        )
    return donor
