"""What one engine is told at its start."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class TlsFiles:
    """How `tcp://` hosts are secured. With `verify` only clients that the authority signed get in."""

    certificate: Path
    key: Path
    authority: Path | None = None
    verify: bool = False


@dataclass(frozen=True)
class DefaultBridge:
    """The network of containers that name none; its subnets are chosen where none is given.

    `address` is its gateway with a prefix length (10.5.0.1/24), `subnet6` a CIDR, `host_ip` where ports are published
    that name no address. Without `icc` its containers reach each other by published ports alone.
    """

    address: str = ""
    ipv6: bool = False
    subnet6: str = ""
    icc: bool = True
    masquerade: bool = True
    mtu: int = 0
    host_ip: str = ""


@dataclass(frozen=True)
class EngineConfig:
    """The settings of one engine. Several engines can run on one machine, each with folders of its own.

    `data_root` holds what lasts (images, containers, volumes, networks), `exec_root` what ends with the
    machine (sockets, the zygote's records). `hosts` are `unix://PATH` or `tcp://HOST:PORT`. With
    `live_restore` containers outlive the engine's stop; else they get `shutdown_timeout` seconds to end. Builds
    may download from public addresses and from `build_networks` (CIDR). `registry_config` is a config.json of
    Docker's: who to be at a registry when a client does not say it.
    """

    data_root: Path = Path("/var/lib/shipway/engine")
    exec_root: Path = Path("/run/shipway")
    hosts: tuple[str, ...] = ("unix:///run/shipway/engine.sock",)
    pidfile: Path | None = None
    group: str = "shipway"
    registry_mirrors: tuple[str, ...] = ()
    insecure_registries: tuple[str, ...] = ()
    registry_config: Path | None = None
    dns: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    default_address_pool: str = "172.20.0.0/14"
    default_bridge: DefaultBridge = DefaultBridge()
    trust_host_ca: bool = False
    build_networks: tuple[str, ...] = ()
    tls: TlsFiles | None = None
    live_restore: bool = False
    shutdown_timeout: float = 15.0

    @property
    def instance(self) -> str:
        """Eight hexadecimal digits that are this engine's own: part of each name it takes from the kernel."""
        return hashlib.sha256(str(self.data_root.absolute()).encode()).hexdigest()[:8]

    @property
    def bridge(self) -> str:
        """The default network's bridge. Interface names have at most 15 characters."""
        return f"sw{self.instance}"

    @property
    def nft_table(self) -> str:
        return f"shipway_{self.instance}"

    @property
    def cgroup_parent(self) -> str:
        """The cgroup below which every container of this engine lives, from the hierarchy's root."""
        return f"/shipway/{self.instance}"
