"""How many connections a replica still serves, read from the kernel's table of its network namespace."""

from __future__ import annotations

from pathlib import Path

_BUSY = frozenset({"01", "03", "04", "08", "09", "0B"})
"""ESTABLISHED, SYN_RECV, FIN_WAIT1, CLOSE_WAIT, LAST_ACK, CLOSING: bytes may still be under way."""


def open_connections(pid: int, port: int, *, proc: Path = Path("/proc")) -> int | None:
    """Connections to local port `port` in the network namespace of process `pid`; None when it is gone."""
    total = 0
    seen = False
    for table in ("tcp", "tcp6"):
        try:
            lines = (proc / str(pid) / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        seen = True
        total += sum(_serves(line, port) for line in lines)
    return total if seen else None


def _serves(line: str, port: int) -> bool:
    """Format: `sl local_address rem_address st ...`, addresses and ports in hexadecimal (proc(5))."""
    fields = line.split()
    return fields[3] in _BUSY and int(fields[1].rpartition(":")[2], 16) == port
