"""A container → the OCI runtime spec of its next start. Pure: all that had to be looked up comes in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.containers import devices, environment, idranges, mounts, security
from engine.containers.hostconfig import HostConfig, Ulimit
from engine.containers.model import ContainerConfig, MountPoint
from engine.containers.resources import resources
from engine.containers.users import ResolvedUser
from engine.errors import InvalidInput
from engine.runtime.spec import (
    Capabilities,
    ConsoleSize,
    Linux,
    LinuxDevice,
    LinuxNamespace,
    LinuxResources,
    Mount,
    Process,
    Rlimit,
    Root,
    Spec,
    User,
)
from engine.runtime.zygote.init import ANNOTATION as INIT

_SHM = 64 << 20
_RLIMITS = frozenset(
    (
        "as",
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    )
)
_IPC_SYSCTLS = frozenset(
    f"kernel.{name}" for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
)
_SHM_AT = "/dev/shm"  # noqa: S108 - a mount point inside the container


@dataclass(frozen=True)
class Sharing:
    """Which namespaces are another's: "" of its own, "host", or the path of one to join.

    `shm_of`: the mount namespace whose /dev/shm goes with the IPC namespace that is joined.
    """

    network: str = ""
    pid: str = ""
    ipc: str = ""
    uts: str = ""
    cgroup: str = ""
    user: str = "host"
    shm_of: str = ""


@dataclass(frozen=True)
class Surroundings:
    """What the host decided about one start."""

    container_id: str
    hostname: str
    user: ResolvedUser
    cgroups_path: str
    id_shift: int = 0
    sharing: Sharing = field(default_factory=Sharing)
    root: Path | None = None
    hosts: Path | None = None
    hostname_file: Path | None = None
    resolv: Path | None = None


def build(
    config: ContainerConfig,
    host_config: HostConfig,
    argv: Sequence[str],
    points: Sequence[MountPoint],
    around: Surroundings,
) -> Spec:
    """The whole spec. Raises InvalidInput for what only shows when everything is put together."""
    idranges.check(around.user, around.id_shift)
    decided = security.decide(host_config)
    nodes, allowed = devices.mapped(host_config.devices)
    if host_config.privileged:
        nodes = devices.all_of_host()
    limits = resources(host_config)
    allowed += [devices.parse_rule(rule) for rule in host_config.device_cgroup_rules]
    limits.devices = devices.rules(allowed, privileged=host_config.privileged)
    return Spec(
        process=process(
            config,
            argv,
            around.user,
            decided,
            hostname=around.hostname,
            rlimits=host_config.ulimits,
            oom_score_adj=host_config.oom_score_adj,
            size=host_config.console_size,
        ),
        root=Root(path=str(around.root or "rootfs"), readonly=host_config.readonly_rootfs),
        hostname=around.hostname if around.sharing.uts != "host" else "",
        domainname=config.domainname,
        mounts=_mounts(host_config, points, around),
        annotations={**host_config.annotations, **({INIT: "true"} if host_config.init else {})},
        linux=_linux(host_config, decided, nodes, limits, around),
    )


def process(
    config: ContainerConfig,
    argv: Sequence[str],
    user: ResolvedUser,
    decided: security.Security,
    *,
    hostname: str,
    rlimits: Sequence[Ulimit] = (),
    oom_score_adj: int = 0,
    size: tuple[int, int] | None = None,
) -> Process:
    """One process of the container: its first, or an execution. `size`: (rows, columns) of its terminal."""
    held = decided.capabilities
    # A process that is not root starts without effective capabilities; the bounding set is what set-uid
    # programs may still reach, as in Docker.
    effective = held if user.uid == 0 else []
    return Process(
        terminal=config.tty,
        console_size=console_size(size) if config.tty else None,
        user=User(uid=user.uid, gid=user.gid, additional_gids=list(user.groups)),
        args=list(argv),
        env=environment.complete(config.env, hostname=hostname, home=user.home, tty=config.tty),
        cwd=config.working_dir or "/",
        capabilities=Capabilities(bounding=held, effective=effective, permitted=effective, inheritable=[], ambient=[]),
        rlimits=[_rlimit(limit) for limit in rlimits],
        no_new_privileges=decided.no_new_privileges,
        oom_score_adj=oom_score_adj,
    )


def console_size(asked: tuple[int, int] | None) -> ConsoleSize | None:
    """Of (rows, columns); None where nobody said. Raises InvalidInput for sizes that no terminal has."""
    if asked is None or asked == (0, 0):
        return None
    if not all(0 <= side < 1 << 16 for side in asked):
        raise InvalidInput(f"invalid terminal size {asked[0]}x{asked[1]}")
    return ConsoleSize(*asked)


def _rlimit(limit: Ulimit) -> Rlimit:
    if limit.name not in _RLIMITS:
        raise InvalidInput(f"invalid ulimit type: {limit.name}")
    if limit.soft > limit.hard >= 0:
        raise InvalidInput(f"ulimit soft limit must be less than or equal to hard limit: {limit.soft} > {limit.hard}")
    unlimited = 2**64 - 1
    return Rlimit(
        type=f"RLIMIT_{limit.name.upper()}",
        soft=unlimited if limit.soft < 0 else limit.soft,
        hard=unlimited if limit.hard < 0 else limit.hard,
    )


def _linux(
    host_config: HostConfig,
    decided: security.Security,
    nodes: list[LinuxDevice],
    limits: LinuxResources,
    around: Surroundings,
) -> Linux:
    mappings = idranges.mappings(around.id_shift)
    return Linux(
        namespaces=_namespaces(around.sharing),
        uid_mappings=mappings,
        gid_mappings=mappings,
        devices=nodes,
        cgroups_path=around.cgroups_path,
        resources=limits,
        seccomp=decided.seccomp,
        sysctl=_sysctls(host_config.sysctls, around.sharing),
        masked_paths=decided.masked,
        readonly_paths=decided.read_only,
    )


def _namespaces(sharing: Sharing) -> list[LinuxNamespace]:
    wanted = [LinuxNamespace(type="mount")]
    for kind in ("user", "pid", "network", "ipc", "uts", "cgroup"):
        mode = getattr(sharing, kind)
        if mode != "host":
            wanted.append(LinuxNamespace(type=kind, path=mode))
    return wanted


def _sysctls(asked: Mapping[str, str], sharing: Sharing) -> dict[str, str]:
    """Only those that belong to a namespace of the container's own; any other would set the host's."""
    for name in asked:
        dotted = name.replace("/", ".")
        if ".." in dotted or dotted.startswith("."):
            raise InvalidInput(f"invalid sysctl name {name!r}")
        if dotted.startswith("net."):
            allowed = sharing.network != "host"
        elif dotted in _IPC_SYSCTLS or dotted.startswith("fs.mqueue."):
            allowed = sharing.ipc != "host"
        elif dotted in ("kernel.hostname", "kernel.domainname"):
            allowed = sharing.uts != "host"
        else:
            raise InvalidInput(f"sysctl {name!r} is not whitelisted: it is not in a namespace of its own")
        if not allowed:
            raise InvalidInput(f"sysctl {name!r} can't be set: the container shares that with the host")
    return {**_own_network(sharing), **asked}


def _own_network(sharing: Sharing) -> dict[str, str]:
    """Without capabilities, any port of one's own network may be bound, and neighbours be pinged: as Docker has it."""
    if sharing.network:
        return {}
    last_group = 2**31 - 1 if sharing.user == "host" else idranges.SIZE - 1
    return {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": f"0 {last_group}"}


def _mounts(host_config: HostConfig, points: Sequence[MountPoint], around: Surroundings) -> list[Mount]:
    privileged = host_config.privileged
    sys_options = ["nosuid", "noexec", "nodev", "rw" if privileged else "ro"]
    wanted = [
        Mount(destination="/proc", type="proc", source="proc", options=["nosuid", "noexec", "nodev"]),
        Mount(
            destination="/dev",
            type="tmpfs",
            source="tmpfs",
            options=["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        Mount(
            destination="/dev/pts",
            type="devpts",
            source="devpts",
            options=["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        Mount(destination="/sys", type="sysfs", source="sysfs", options=sys_options),
        Mount(destination="/sys/fs/cgroup", type="cgroup", source="cgroup", options=[*sys_options, "relatime"]),
        Mount(destination="/dev/mqueue", type="mqueue", source="mqueue", options=["nosuid", "noexec", "nodev"]),
    ]
    if host_config.ipc_mode != "none":
        wanted.append(_shm(host_config, around.sharing))
    # Of a root that is read-only they are, too, as in Docker.
    only_read = ["ro"] if host_config.readonly_rootfs else []
    files = [
        _bind(destination, source, *only_read)
        for destination, source in (
            ("/etc/resolv.conf", around.resolv),
            ("/etc/hostname", around.hostname_file),
            ("/etc/hosts", around.hosts),
        )
        if source is not None
    ]
    users = [_point(point, mapped=around.id_shift > 0) for point in points]
    for destination, options in host_config.tmpfs.items():
        flags = ["noexec", "nosuid", "nodev", *mounts.split_options(options)]
        users.append(Mount(destination=mounts.target(destination), type="tmpfs", source="tmpfs", options=flags))
    hidden = {mount.destination for mount in users}
    users += [mount for mount in files if mount.destination not in hidden]
    # Parents before children, whatever order they were given in; the default ones give way to the user's.
    users.sort(key=lambda mount: mount.destination.count("/"))
    return [mount for mount in wanted if mount.destination not in hidden] + users


def _shm(host_config: HostConfig, sharing: Sharing) -> Mount:
    if sharing.ipc == "host":
        return _bind(_SHM_AT, Path(_SHM_AT))
    if sharing.ipc:
        return _bind(_SHM_AT, Path(_SHM_AT), f"x-namespace={sharing.shm_of}")
    options = ["nosuid", "noexec", "nodev", "mode=1777", f"size={host_config.shm_size or _SHM}"]
    return Mount(destination=_SHM_AT, type="tmpfs", source="shm", options=options)


def _bind(destination: str, source: Path, *options: str) -> Mount:
    return Mount(destination=destination, type="bind", source=str(source), options=["rbind", "rprivate", *options])


def _point(point: MountPoint, *, mapped: bool) -> Mount:
    if point.type == "tmpfs":
        options = ["nosuid", "noexec", "nodev", "rw" if point.rw else "ro", *point.options]
        return Mount(destination=point.destination, type="tmpfs", source="tmpfs", options=options)
    options = [option for option in point.options if option in ("bind", "rbind")] or ["rbind"]
    # As Docker since 25: with all that is mounted below it, unless somebody said otherwise.
    deep = "rbind" in options and "shallow" not in point.options
    options += [point.propagation or "rprivate", "rw" if point.rw else "rro" if deep else "ro"]
    # The host's files with the container's ids: root in there is root on what was given to it, as in Docker.
    options += ["ridmap"] if mapped else []
    source = f"{point.source}/{point.subpath}" if point.subpath else point.source
    options += [f"x-beneath={point.source}"] if point.subpath else []
    return Mount(destination=point.destination, type="bind", source=source, options=options)
