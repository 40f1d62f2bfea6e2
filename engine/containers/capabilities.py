"""Which capabilities a container gets: Docker's default set, plus what was added, minus what was dropped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from engine.errors import InvalidInput

_ALL_WORDS = """
CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID CAP_SETUID
CAP_SETPCAP CAP_LINUX_IMMUTABLE CAP_NET_BIND_SERVICE CAP_NET_BROADCAST CAP_NET_ADMIN CAP_NET_RAW
CAP_IPC_LOCK CAP_IPC_OWNER CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_CHROOT CAP_SYS_PTRACE CAP_SYS_PACCT
CAP_SYS_ADMIN CAP_SYS_BOOT CAP_SYS_NICE CAP_SYS_RESOURCE CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_MKNOD
CAP_LEASE CAP_AUDIT_WRITE CAP_AUDIT_CONTROL CAP_SETFCAP CAP_MAC_OVERRIDE CAP_MAC_ADMIN CAP_SYSLOG
CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_AUDIT_READ CAP_PERFMON CAP_BPF CAP_CHECKPOINT_RESTORE
"""
ALL = tuple(_ALL_WORDS.split())
"""In the order of their numbers."""

_DEFAULT_WORDS = """
CAP_CHOWN CAP_DAC_OVERRIDE CAP_FSETID CAP_FOWNER CAP_MKNOD CAP_NET_RAW CAP_SETGID CAP_SETUID CAP_SETFCAP
CAP_SETPCAP CAP_NET_BIND_SERVICE CAP_SYS_CHROOT CAP_KILL CAP_AUDIT_WRITE
"""
DEFAULT = tuple(_DEFAULT_WORDS.split())

_NUMBER = {name: number for number, name in enumerate(ALL)}


def available() -> frozenset[str]:
    """What this process may hand on: its bounding set. An engine in a container has less than everything."""
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("CapBnd:"):
                mask = int(line.split()[1], 16)
                return frozenset(name for number, name in enumerate(ALL) if mask >> number & 1)
    return frozenset(ALL)


def normalize(names: Iterable[str]) -> list[str]:
    """`net_admin`, `NET_ADMIN` and `CAP_NET_ADMIN` are the same; `ALL` stays. Raises InvalidInput."""
    normal = []
    for name in names:
        upper = name.upper()
        if upper == "ALL":
            normal.append("ALL")
            continue
        if not upper.startswith("CAP_"):
            upper = f"CAP_{upper}"
        if upper not in _NUMBER:
            raise InvalidInput(f"invalid capability {name!r}: see capabilities(7) for the names")
        normal.append(upper)
    return normal


def decide(add: Sequence[str], drop: Sequence[str], *, privileged: bool) -> list[str]:
    """The set, in the order of the kernel's numbers. `ALL` in either list works as in Docker."""
    added, dropped = set(normalize(add)), set(normalize(drop))
    if privileged:
        return list(ALL)
    if "ALL" in added:
        chosen = set(ALL) - dropped
    elif "ALL" in dropped:
        chosen = added
    else:
        chosen = (set(DEFAULT) - dropped) | added
    return [name for name in ALL if name in chosen]
