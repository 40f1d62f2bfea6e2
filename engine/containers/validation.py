"""Whether a container that is asked for makes sense: everything that can be known before it is made."""

from __future__ import annotations

import re

import msgspec

from engine.containers import devices, diskquota, mounts, netfiles, resources, security, signals
from engine.containers.hostconfig import HostConfig, RestartPolicy
from engine.containers.model import ContainerConfig, HealthConfig
from engine.errors import InvalidInput
from engine.network.addresses import parse_mac

_MILLISECOND = 1_000_000
_PORT = re.compile(r"(\d{1,5})(?:/(tcp|udp|sctp))?", re.ASCII)
_LOG_DRIVERS = frozenset(("", "json-file", "local", "none"))
_LOG_OPTIONS = frozenset(
    (
        "max-size",
        "max-file",
        "labels",
        "labels-regex",
        "env",
        "env-regex",
        "tag",
        "compress",
        "mode",
        "max-buffer-size",
    )
)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE | re.ASCII)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_LONGEST_HOSTNAME = 63
_RUNTIMES = frozenset(("", "shipway", "runc", "io.containerd.runc.v2"))
"""Names that stand for this engine's own runtime: clients that name runc want the ordinary one."""


def check(config: ContainerConfig, host_config: HostConfig) -> None:
    """Raises InvalidInput with one line that says what to change."""
    resources.validate(host_config)
    security.decide(host_config)
    restart_policy(host_config.restart_policy, auto_remove=host_config.auto_remove)
    log_limits(host_config)
    _not_here(host_config)
    _health(config.healthcheck)
    if config.stop_signal:
        signals.number(config.stop_signal)
    if config.hostname and host_config.uts_mode == "host":
        raise InvalidInput("conflicting options: hostname and the UTS mode")
    if len(config.hostname) > _LONGEST_HOSTNAME or "\n" in config.hostname or "\0" in config.hostname:
        raise InvalidInput(f"invalid hostname {config.hostname[:80]!r}: at most 63 characters, one line")
    for entry in (*config.env, *(config.cmd or ()), *(config.entrypoint or ())):
        if "\0" in entry:
            raise InvalidInput("arguments and environment variables can't contain a NUL byte")
    for entry in config.env:
        if not entry.partition("=")[0]:
            raise InvalidInput(f"invalid environment variable: {entry[:80]}".splitlines()[0])
    for port in config.exposed_ports:
        parse_port(port)
    for port in host_config.port_bindings:
        number, protocol = parse_port(port)
        if protocol == "sctp":
            raise InvalidInput(f"can't publish port {number}/sctp: only tcp and udp can be published")
    if config.mac_address:
        parse_mac(config.mac_address)
    for rule in host_config.device_cgroup_rules:
        devices.parse_rule(rule)
    for options in host_config.tmpfs.values():
        mounts.split_options(options)
    netfiles.extra_hosts(host_config.extra_hosts)
    if not -1000 <= host_config.oom_score_adj <= 1000:
        raise InvalidInput(f"Invalid value {host_config.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    if "" in host_config.annotations:
        raise InvalidInput("invalid Annotations: the empty string is not permitted as an annotation key")
    if host_config.shm_size < 0:
        raise InvalidInput("SHM size can not be less than 0")


def _not_here(host_config: HostConfig) -> None:
    """What is asked for and can't be had is refused: a container without it would only seem to be right."""
    if host_config.runtime not in _RUNTIMES:
        raise InvalidInput(f"unknown or invalid runtime name: {host_config.runtime}")
    if host_config.isolation not in ("", "default"):
        raise InvalidInput(f"Invalid isolation: \"{host_config.isolation}\" - linux only supports 'default'")
    diskquota.size(host_config.storage_opt)
    for request in host_config.device_requests:
        driver, wanted = request.get("Driver") or "", request.get("Capabilities")
        raise InvalidInput(f'could not select device driver "{driver}" with capabilities: {_shown(wanted)}')


def _shown(value: object) -> str:
    return msgspec.json.encode(value).decode().replace('"', "")


def warnings(host_config: HostConfig) -> list[str]:
    """What works otherwise than its user may think."""
    found: list[str] = []
    if host_config.network_mode == "host" and (host_config.port_bindings or host_config.publish_all_ports):
        found.append("Published ports are discarded when using host network mode")
    if host_config.oom_kill_disable and not host_config.memory:
        found.append(
            "OOM killer is disabled for the container, but no memory limit is set, "
            "this can result in the system running out of resources."
        )
    return found


def restart_policy(policy: RestartPolicy, *, auto_remove: bool = False) -> None:
    """Raises InvalidInput."""
    if policy.name not in ("", "no", "always", "unless-stopped", "on-failure"):
        raise InvalidInput(
            f"invalid restart policy: unknown policy '{policy.name}'; "
            "use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )
    if policy.maximum_retry_count and policy.name != "on-failure":
        raise InvalidInput("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    if policy.maximum_retry_count < 0:
        raise InvalidInput("invalid restart policy: maximum retry count cannot be negative")
    if auto_remove and policy.name not in ("", "no"):
        raise InvalidInput("can't create 'AutoRemove' container with restart policy")


def parse_port(text: str) -> tuple[int, str]:
    """(port, protocol) of `80` or `80/udp`."""
    match = _PORT.fullmatch(text)
    if match is None or not 0 < int(match[1]) < 65536:
        raise InvalidInput(f"invalid port specification: {text!r}")
    return int(match[1]), match[2] or "tcp"


def log_limits(host_config: HostConfig) -> tuple[int | None, int]:
    """(bytes of one log file, number of files). Without `max-size` one file grows without end, as in Docker.

    The `local` driver differs from json-file in its defaults only: it keeps five files of 20 MB.
    """
    settings = host_config.log_config
    if settings.type not in _LOG_DRIVERS:
        raise InvalidInput(f'error looking up logging plugin {settings.type}: plugin "{settings.type}" not found')
    for option in settings.config:
        if option not in _LOG_OPTIONS:
            raise InvalidInput(f"unknown log opt '{option}' for {settings.type or 'json-file'} log driver")
    local = settings.type == "local"
    size = settings.config.get("max-size", "20m" if local else None)
    files = settings.config.get("max-file", "5" if local else "1")
    if not (files.isascii() and files.isdigit()) or not 0 < int(files) <= 1000:
        raise InvalidInput(f"invalid value for max-file: {files!r}: a number from 1 on")
    if size is None or size == "-1":
        return None, 1
    match = _SIZE.fullmatch(size)
    limit = int(float(match[1]) * _UNITS[match[2].lower()]) if match else 0
    if limit <= 0:
        raise InvalidInput(f"invalid value for max-size: {size!r}: write it as 10m")
    return limit, int(files)


def _health(health: HealthConfig | None) -> None:
    if health is None:
        return
    if health.test and health.test[0] not in ("NONE", "CMD", "CMD-SHELL"):
        raise InvalidInput(f"Unknown type of healthcheck {health.test[0]!r}: use NONE, CMD or CMD-SHELL")
    if health.test[:1] in (["CMD"], ["CMD-SHELL"]) and len(health.test) < 2:
        raise InvalidInput("Healthcheck: a command is missing")
    for name in ("interval", "timeout", "start_period", "start_interval"):
        value = getattr(health, name)
        if value and value < _MILLISECOND:
            field = "".join(word.capitalize() for word in name.split("_"))
            raise InvalidInput(f"{field} in Healthcheck cannot be less than 1ms")
    if health.retries < 0:
        raise InvalidInput("Retries in Healthcheck cannot be negative")
