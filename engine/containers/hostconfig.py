"""How a container meets its host: Docker's HostConfig, as the API carries it and the store keeps it."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field


class PortBinding(Struct, rename="pascal", frozen=True):
    """One published address. An empty `host_port` asks for any free port."""

    host_ip: str = ""
    host_port: str = ""


class RestartPolicy(Struct, rename="pascal", frozen=True):
    """`name` is no, always, unless-stopped or on-failure; the count bounds on-failure only (0: no bound)."""

    name: str = ""
    maximum_retry_count: int = 0


class LogSettings(Struct, rename="pascal", frozen=True):
    type: str = ""
    config: dict[str, str] = {}


class DeviceMapping(Struct, rename="pascal", frozen=True):
    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = "rwm"


class Ulimit(Struct, rename="pascal", frozen=True):
    name: str
    soft: int = 0
    hard: int = 0


class WeightDevice(Struct, rename="pascal", frozen=True):
    path: str = ""
    weight: int = 0


class ThrottleDevice(Struct, rename="pascal", frozen=True):
    """Bytes or operations a second for one block device."""

    path: str = ""
    rate: int = 0


class BindOptions(Struct, rename="pascal", frozen=True):
    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class DriverConfig(Struct, rename="pascal", frozen=True):
    name: str = ""
    options: dict[str, str] = {}


class VolumeOptions(Struct, rename="pascal", frozen=True):
    no_copy: bool = False
    labels: dict[str, str] = {}
    driver_config: DriverConfig = DriverConfig()
    subpath: str = ""


class TmpfsOptions(Struct, rename="pascal", frozen=True):
    size_bytes: int = 0
    mode: int = 0
    options: list[list[str]] = []


class MountRequest(Struct, rename="pascal", frozen=True):
    """One `--mount`."""

    type: str = "volume"
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions = BindOptions()
    volume_options: VolumeOptions = VolumeOptions()
    tmpfs_options: TmpfsOptions = TmpfsOptions()


class Limits(Struct, rename="pascal", kw_only=True):
    """What `docker update` may change of a container that lives. Memory in bytes, quotas in µs, 0: unset."""

    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: list[WeightDevice] = []
    blkio_device_read_bps: list[ThrottleDevice] = []
    blkio_device_write_bps: list[ThrottleDevice] = []
    blkio_device_read_iops: list[ThrottleDevice] = field(name="BlkioDeviceReadIOps", default_factory=list)
    blkio_device_write_iops: list[ThrottleDevice] = field(name="BlkioDeviceWriteIOps", default_factory=list)
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: list[DeviceMapping] = []
    device_cgroup_rules: list[str] = []
    device_requests: list[dict[str, Any]] = []
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    pids_limit: int | None = None
    ulimits: list[Ulimit] = []


class HostConfig(Limits, rename="pascal", kw_only=True):
    """Everything about a container that is not the image's business."""

    binds: list[str] = []
    container_id_file: str = field(name="ContainerIDFile", default="")
    log_config: LogSettings = LogSettings()
    network_mode: str = ""
    port_bindings: dict[str, list[PortBinding]] = {}
    restart_policy: RestartPolicy = RestartPolicy()
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: list[str] = []
    console_size: tuple[int, int] = (0, 0)
    annotations: dict[str, str] = {}
    cap_add: list[str] = []
    cap_drop: list[str] = []
    cgroupns_mode: str = ""
    dns: list[str] = []
    dns_options: list[str] = []
    dns_search: list[str] = []
    extra_hosts: list[str] = []
    group_add: list[str] = []
    ipc_mode: str = ""
    cgroup: str = ""
    links: list[str] = []
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: list[str] = []
    storage_opt: dict[str, str] = {}
    tmpfs: dict[str, str] = {}
    uts_mode: str = field(name="UTSMode", default="")
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: dict[str, str] = {}
    runtime: str = ""
    isolation: str = ""
    mounts: list[MountRequest] = []
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None
    init: bool | None = None
