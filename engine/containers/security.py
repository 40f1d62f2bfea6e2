"""How strictly a container is kept: `--security-opt`, `--privileged`, capabilities, masked paths."""

from __future__ import annotations

import functools
import glob
from dataclasses import dataclass, field

from engine.containers import capabilities, seccomp
from engine.containers.hostconfig import HostConfig
from engine.errors import InvalidInput
from engine.runtime.spec import LinuxSeccomp

MASKED = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


@dataclass(frozen=True)
class Security:
    capabilities: list[str]
    seccomp: LinuxSeccomp | None
    no_new_privileges: bool = False
    masked: list[str] = field(default_factory=list)
    read_only: list[str] = field(default_factory=list)


def decide(host_config: HostConfig) -> Security:
    """Everything Docker decides from the host configuration. Raises InvalidInput for what is not understood.

    AppArmor and SELinux options are accepted and change nothing on a host that has neither.
    """
    privileged = host_config.privileged
    held = capabilities.decide(host_config.cap_add, host_config.cap_drop, privileged=privileged)
    no_new_privileges, profile = False, None
    for option in host_config.security_opt:
        name, separator, value = _split(option)
        if name == "no-new-privileges":
            if value not in ("", "true", "false"):
                raise InvalidInput(f"invalid --security-opt {option!r}: write it as no-new-privileges:true")
            no_new_privileges = value != "false"
        elif name == "seccomp" and separator:
            profile = value
        elif name not in ("apparmor", "label", "systempaths", "credentialspec", "writable-cgroups"):
            raise InvalidInput(f"invalid --security-opt {option!r}")
    if profile == "unconfined" or (privileged and profile is None):
        filtered = None
    elif profile in (None, "", "builtin"):
        filtered = seccomp.default_filter(frozenset(held))
    else:
        assert profile is not None
        filtered = seccomp.resolve(seccomp.parse(profile), held)
    open_paths = privileged or "systempaths=unconfined" in host_config.security_opt
    masked, read_only = host_config.masked_paths, host_config.readonly_paths
    return Security(
        capabilities=held,
        seccomp=filtered,
        no_new_privileges=no_new_privileges,
        masked=[] if open_paths else [*MASKED, *_throttling()] if masked is None else masked,
        read_only=[] if open_paths else READ_ONLY if read_only is None else read_only,
    )


@functools.cache
def _throttling() -> list[str]:
    """How hot each processor is: it tells what the neighbours compute."""
    return sorted(glob.glob("/sys/devices/system/cpu/cpu*/thermal_throttle"))


def _split(option: str) -> tuple[str, str, str]:
    """`name=value`, or Docker's older `name:value`."""
    if option == "no-new-privileges":
        return option, "", ""
    name, separator, value = option.partition("=")
    if not separator:
        name, separator, value = option.partition(":")
    return name, separator, value
