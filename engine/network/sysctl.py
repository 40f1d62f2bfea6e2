"""The kernel's settings below /proc/sys/net, of the network namespace that the caller is in."""

from __future__ import annotations

from pathlib import Path

from engine.errors import SystemFailure

_ROOT = Path("/proc/sys/net")


def read(name: str) -> str:
    """The setting's value; empty where this kernel has no such setting."""
    try:
        return (_ROOT / name).read_text().strip()
    except OSError:
        return ""


def write(name: str, value: str) -> None:
    """Raises SystemFailure when the kernel, or a read-only /proc/sys, refuses."""
    try:
        (_ROOT / name).write_text(value)
    except OSError as error:
        where = f"/proc/sys/net/{name}"
        raise SystemFailure(f"{where}: {error.strerror}; is /proc/sys writable here?", error.errno) from error


def interfaces(family: str) -> list[str]:
    """The names of all interfaces that have settings of `family`, ipv4 or ipv6."""
    try:
        found = [path.name for path in (_ROOT / family / "conf").iterdir()]
    except OSError:
        return []
    return [name for name in found if name not in {"all", "default"}]
