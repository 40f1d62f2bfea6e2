"""What a container is. The field names in JSON are Docker's own, so the API shows what the store keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct, field

from engine.containers import gojson, times
from engine.containers.hostconfig import HostConfig, PortBinding
from engine.errors import InvalidInput

Status = Literal["created", "running", "paused", "restarting", "removing", "exited", "dead"]
T = TypeVar("T")


class HealthConfig(Struct, rename="pascal", frozen=True):
    """How a container is asked for its health. Durations in nanoseconds; 0 is "as usual".

    `test` is [] (the image's), ["NONE"], ["CMD", argv...] or ["CMD-SHELL", line].
    """

    test: list[str] = []
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class ContainerConfig(Struct, rename="pascal", kw_only=True):
    """What runs in a container, independent of its host: Docker's Config."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, dict[str, Any]] = {}
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: list[str] = []
    cmd: list[str] | None = None
    healthcheck: HealthConfig | None = None
    args_escaped: bool = False
    image: str = ""
    volumes: dict[str, dict[str, Any]] = {}
    working_dir: str = ""
    entrypoint: list[str] | None = None
    network_disabled: bool = False
    mac_address: str = ""
    on_build: list[str] = []
    labels: dict[str, str] = {}
    stop_signal: str = ""
    stop_timeout: int | None = None
    shell: list[str] | None = None


class HealthResult(Struct, rename="pascal", frozen=True):
    """One probe. Times in RFC 3339."""

    start: str
    end: str
    exit_code: int
    output: str


class Health(Struct, rename="pascal", kw_only=True):
    status: Literal["starting", "healthy", "unhealthy"] = "starting"
    failing_streak: int = 0
    log: list[HealthResult] = []


class State(Struct, rename="pascal", kw_only=True):
    """Where a container is in its life. `pid` is the host's number of its first process, 0 when none runs."""

    status: Status = "created"
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = field(name="OOMKilled", default=False)
    started_at: str = times.ZERO
    finished_at: str = times.ZERO
    health: Health | None = None

    @property
    def running(self) -> bool:
        """Docker's word: there is something to stop. True while paused and between two restarts as well."""
        return self.status in ("running", "paused", "restarting")

    @property
    def alive(self) -> bool:
        """A process is there."""
        return self.status in ("running", "paused")


class MountPoint(Struct, rename="pascal", kw_only=True):
    """One mount as decided at creation. `source` is a path on the host."""

    type: Literal["bind", "volume", "tmpfs"] = "bind"
    name: str = ""
    source: str = ""
    destination: str
    driver: str = ""
    mode: str = ""
    rw: bool = field(name="RW", default=True)
    propagation: str = ""
    # Not shown by the API: what is needed to make the mount. Of a bind: bind or rbind; create, a folder of the host
    # that is not there; shallow, read-only but for what is mounted below.
    options: list[str] = []
    anonymous: bool = False
    copy_up: bool = False
    subpath: str = ""
    # Of the volume, if it is made for this mount.
    labels: dict[str, str] = {}


class IPAMConfig(Struct, frozen=True):
    """Addresses that the user asked for."""

    ipv4_address: str = field(name="IPv4Address", default="")
    ipv6_address: str = field(name="IPv6Address", default="")
    link_local_ips: list[str] = field(name="LinkLocalIPs", default_factory=list)


class EndpointSettings(Struct, rename="pascal", kw_only=True):
    """A container's place in one network: what was asked for, and what it got while it runs.

    `desired_mac` is the hardware address that was asked for; not shown by the API.
    """

    ipam_config: IPAMConfig | None = field(name="IPAMConfig", default=None)
    links: list[str] = []
    aliases: list[str] = []
    mac_address: str = ""
    desired_mac: str = ""
    driver_opts: dict[str, str] = {}
    network_id: str = field(name="NetworkID", default="")
    endpoint_id: str = field(name="EndpointID", default="")
    gateway: str = ""
    ip_address: str = field(name="IPAddress", default="")
    ip_prefix_len: int = field(name="IPPrefixLen", default=0)
    ipv6_gateway: str = field(name="IPv6Gateway", default="")
    global_ipv6_address: str = field(name="GlobalIPv6Address", default="")
    global_ipv6_prefix_len: int = field(name="GlobalIPv6PrefixLen", default=0)
    dns_names: list[str] = field(name="DNSNames", default_factory=list)


class NetworkingConfig(Struct, rename="pascal", kw_only=True):
    endpoints_config: dict[str, EndpointSettings] = {}


class NetworkSettings(Struct, rename="pascal", kw_only=True):
    """`ports` maps `80/tcp` to where it is published; None where it is only exposed."""

    ports: dict[str, list[PortBinding] | None] = {}
    networks: dict[str, EndpointSettings] = {}
    sandbox_key: str = ""


class TlsPems(Struct, rename="pascal", kw_only=True, frozen=True):
    """What `docker --tlsverify` uses, as PEM: the authority, and the client's certificate and key."""

    authority: str = ""
    certificate: str = ""
    key: str = ""


class Move(Struct, rename="pascal", kw_only=True):
    """A container on its way between two engines: what each must know should it, or the other, die meanwhile.

    `id` is the same on both sides, `host` the other engine's address where it is known. Phases of the leaving side:
    copying (it may run), stopped (it is down, and the other side has not been told to start it), starting (the other
    side may have started it), done (the other side has it). Of the arriving side: copying, then starting.
    """

    id: str
    outgoing: bool
    phase: Literal["copying", "stopped", "starting", "done"] = "copying"
    host: str = ""
    tls: TlsPems | None = None
    copy: bool = False
    start: bool = True
    # Whether it is to run here again should the move come to nothing.
    ran: bool = False
    stopped_by_user: bool = False
    # What was made for it here, to be taken away again.
    volumes: list[str] = []
    networks: list[str] = []
    layers: list[str] = []


class Container(Struct, rename="pascal", kw_only=True):
    """One container: what was asked for, what was decided, and how it is now.

    `name` has no slash. `id_shift` is the first host id of its user namespace, 0 when it has none of its own.
    """

    id: str
    name: str
    created: str
    image: str
    path: str = ""
    args: list[str] = []
    config: ContainerConfig
    host_config: HostConfig
    state: State = field(default_factory=State)
    network_settings: NetworkSettings = field(default_factory=NetworkSettings)
    mounts: list[MountPoint] = []
    restart_count: int = 0
    id_shift: int = 0
    log_path: str = ""
    # True between a user's stop or kill and the next start: restart policies look at it.
    stopped_by_user: bool = False
    move: Move | None = None

    @property
    def short_id(self) -> str:
        return self.id[:12]

    @property
    def hostname(self) -> str:
        return self.config.hostname or self.short_id


class ContainerPaths:
    """Where one container's files are, below the engine's `data_root`."""

    def __init__(self, data_root: Path, container_id: str) -> None:
        self.root = data_root / "containers" / container_id
        self.upper = self.root / "upper"
        self.work = self.root / "work"
        self.log = self.root / f"{container_id}-json.log"
        self.hosts = self.root / "hosts"
        self.hostname = self.root / "hostname"
        self.resolv = self.root / "resolv.conf"
        self.merged = self.root / "merged"


def from_json(kind: type[T], raw: object) -> T:
    """One of these structs from a request's JSON. Go writes null for empty, so null means "the default"; it takes names
    in whatever case.

    Raises InvalidInput with the path of the first field that does not fit, and for what is nested too deep.
    """
    try:
        return msgspec.convert(gojson.plain(raw, kind), kind, strict=True)
    except (msgspec.ValidationError, RecursionError) as error:
        raise InvalidInput(f"invalid JSON: {error}") from None


def to_json(value: Struct) -> Any:
    """Plain dictionaries and lists, with Docker's names."""
    return msgspec.to_builtins(value)
