"""Linux capabilities by name, and the sets of the calling process. Standard library only."""

from __future__ import annotations

import errno
import functools

from engine.kernel import libc

TYPE_CHECKING = False  # typing is half a megabyte, and all of the zygote's children would carry it
if TYPE_CHECKING:
    from typing import Any

NAMES = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
]
_BIT = {name: bit for bit, name in enumerate(NAMES)}
_SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")


@functools.cache
def own_bounding() -> int:
    """The bounding set of this process: nobody below it can have more."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1], 16) for line in file if line.startswith("CapBnd:"))


def mask(names: list[str]) -> int:
    """Bits of the named capabilities that this host can give. Unknown names are passed over."""
    return sum(1 << _BIT[name] for name in set(names) if name in _BIT) & own_bounding()


def masks(sets: dict[str, Any]) -> dict[str, int]:
    """Each of the OCI spec's five sets as bits."""
    return {name: mask(sets.get(name, ())) for name in _SETS}


def drop_bounding(keep: int) -> None:
    """Also of what this host can't give: a new user namespace begins with all there are."""
    for bit in range(len(NAMES)):
        if not keep >> bit & 1:
            try:
                libc.prctl(libc.PR_CAPBSET_DROP, bit)
            except OSError as error:
                # An older kernel does not know the last ones.
                if error.errno != errno.EINVAL:
                    raise


def apply(sets: dict[str, int]) -> None:
    """Sets effective, permitted, inheritable and ambient."""
    libc.prctl(libc.PR_CAP_AMBIENT, libc.PR_CAP_AMBIENT_CLEAR_ALL)
    libc.capset(sets["effective"] & sets["permitted"], sets["permitted"], sets["inheritable"])
    for bit in range(len(NAMES)):
        if sets["ambient"] >> bit & 1:
            libc.prctl(libc.PR_CAP_AMBIENT, libc.PR_CAP_AMBIENT_RAISE, bit)
