"""The OCI runtime specification's config.json (runtime-spec 1.2, config.md and config-linux.md), as far as it is used.

Names are the specification's own, in snake case here and camel case in JSON. What is None or empty stays out.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

_Value = TypeVar("_Value")


class _Struct(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=False):
    """Camel case in JSON, defaults left out."""


def _always(value: _Value) -> _Value:
    """A default that is written out all the same: the specification requires the field."""
    default: _Value = msgspec.field(default_factory=lambda: value)
    return default


class User(_Struct):
    uid: int = _always(0)
    gid: int = _always(0)
    umask: int | None = None
    additional_gids: list[int] = []


class Rlimit(_Struct):
    type: str
    hard: int
    soft: int


class Capabilities(_Struct):
    bounding: list[str] = []
    effective: list[str] = []
    inheritable: list[str] = []
    permitted: list[str] = []
    ambient: list[str] = []


class ConsoleSize(_Struct):
    height: int
    width: int


class Process(_Struct):
    args: list[str]
    cwd: str = _always("/")
    env: list[str] = []
    user: User = msgspec.field(default_factory=User)
    terminal: bool = False
    console_size: ConsoleSize | None = None
    capabilities: Capabilities | None = None
    rlimits: list[Rlimit] = []
    no_new_privileges: bool = False
    oom_score_adj: int | None = None


class Root(_Struct):
    path: str
    readonly: bool = False


class IDMapping(_Struct):
    container_id: int = msgspec.field(name="containerID")
    host_id: int = msgspec.field(name="hostID")
    size: int


class Mount(_Struct):
    destination: str
    type: str = ""
    source: str = ""
    options: list[str] = []


class LinuxNamespace(_Struct):
    type: str
    path: str = ""


class LinuxDevice(_Struct):
    """`source` is not of the standard: the host's own node, to be shown where none can be made."""

    path: str
    type: str
    major: int
    minor: int
    file_mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    source: str | None = None


class LinuxDeviceCgroup(_Struct):
    allow: bool
    type: str = ""
    major: int | None = None
    minor: int | None = None
    access: str = ""


class LinuxMemory(_Struct):
    limit: int | None = None
    reservation: int | None = None
    swap: int | None = None
    swappiness: int | None = None
    disable_oom_killer: bool | None = msgspec.field(default=None, name="disableOOMKiller")


class LinuxCPU(_Struct):
    shares: int | None = None
    quota: int | None = None
    period: int | None = None
    cpus: str | None = None
    mems: str | None = None
    realtime_period: int | None = None
    realtime_runtime: int | None = None


class LinuxPids(_Struct):
    limit: int


class LinuxWeightDevice(_Struct):
    major: int
    minor: int
    weight: int | None = None


class LinuxThrottleDevice(_Struct):
    major: int
    minor: int
    rate: int


class LinuxBlockIO(_Struct):
    weight: int | None = None
    weight_device: list[LinuxWeightDevice] = []
    throttle_read_bps_device: list[LinuxThrottleDevice] = []
    throttle_write_bps_device: list[LinuxThrottleDevice] = []
    throttle_read_iops_device: list[LinuxThrottleDevice] = msgspec.field(
        default_factory=list, name="throttleReadIOPSDevice"
    )
    throttle_write_iops_device: list[LinuxThrottleDevice] = msgspec.field(
        default_factory=list, name="throttleWriteIOPSDevice"
    )


class LinuxResources(_Struct):
    devices: list[LinuxDeviceCgroup] = []
    memory: LinuxMemory | None = None
    cpu: LinuxCPU | None = None
    pids: LinuxPids | None = None
    block_io: LinuxBlockIO | None = msgspec.field(default=None, name="blockIO")


class LinuxSeccompArg(_Struct):
    index: int
    value: int
    op: str
    value_two: int = 0


class LinuxSyscall(_Struct):
    names: list[str]
    action: str
    errno_ret: int | None = None
    args: list[LinuxSeccompArg] = []


class LinuxSeccomp(_Struct):
    default_action: str
    default_errno_ret: int | None = None
    architectures: list[str] = []
    flags: list[str] = []
    syscalls: list[LinuxSyscall] = []


class Linux(_Struct):
    namespaces: list[LinuxNamespace] = []
    uid_mappings: list[IDMapping] = []
    gid_mappings: list[IDMapping] = []
    devices: list[LinuxDevice] = []
    cgroups_path: str = ""
    resources: LinuxResources | None = None
    sysctl: dict[str, str] = {}
    seccomp: LinuxSeccomp | None = None
    rootfs_propagation: str = ""
    masked_paths: list[str] = []
    readonly_paths: list[str] = []
    mount_label: str = ""


class Spec(_Struct):
    process: Process
    root: Root
    hostname: str = ""
    domainname: str = ""
    mounts: list[Mount] = []
    linux: Linux = msgspec.field(default_factory=Linux)
    annotations: dict[str, str] = {}
    oci_version: str = _always("1.2.0")


def encode(spec: Spec | Process | LinuxResources) -> bytes:
    """The JSON of it."""
    return msgspec.json.encode(spec)


def decode(raw: bytes) -> Spec:
    """A config.json → Spec. Raises msgspec.ValidationError with the path of what is wrong."""
    return msgspec.json.decode(raw, type=Spec)
