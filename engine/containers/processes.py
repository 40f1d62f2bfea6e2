"""One process as the kernel tells of it: /proc/PID (proc(5)), with the owners' ids as the container sees them."""

from __future__ import annotations

import functools
import os
import time
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_LONGEST = 128 << 10


@dataclass(frozen=True)
class IdMap:
    """A user namespace's map: (first id inside, first id outside, how many), as /proc/PID/uid_map has it."""

    ranges: tuple[tuple[int, int, int], ...]

    @classmethod
    def read(cls, pid: int, kind: str) -> IdMap:
        """`kind` is uid or gid. Raises OSError."""
        lines = Path(f"/proc/{pid}/{kind}_map").read_text(encoding="ascii").splitlines()
        return cls(tuple((int(inside), int(outside), int(count)) for inside, outside, count in map(str.split, lines)))

    def inside(self, outside: int) -> int:
        """The id in the namespace; one that does not exist there stays as it is."""
        for inside, first, count in self.ranges:
            if first <= outside < first + count:
                return inside + outside - first
        return outside


@dataclass(frozen=True)
class Process:
    """Times in seconds, sizes in bytes; `started` in unix seconds. Ids of users and groups are the container's."""

    pid: int
    ppid: int
    pgid: int
    sid: int
    state: str
    comm: str
    args: str
    tty: str
    tpgid: int
    flags: int
    cpu: float
    started: int
    age: float
    priority: int
    nice: int
    threads: int
    vsize: int
    rss: int
    processor: int
    locked: bool
    uid: int
    euid: int
    gid: int
    egid: int


def read(pid: int, uids: IdMap, gids: IdMap) -> Process | None:
    """None when it has ended."""
    folder = Path(f"/proc/{pid}")
    try:
        stat = (folder / "stat").read_bytes().decode(errors="replace")
        status = dict(line.split(":", 1) for line in (folder / "status").read_text(errors="replace").splitlines())
        with (folder / "cmdline").open("rb") as file:
            words = file.read(_LONGEST)
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name may have any bytes in it, parentheses and spaces too.
    comm, rest = stat.partition("(")[2].rpartition(")")[::2]
    state, *others = rest.split()
    numbers = [int(field) for field in others]
    ppid, pgid, sid, terminal, tpgid, flags = numbers[:6]
    utime, stime, _, _, priority, nice, threads, _, start, vsize = numbers[10:20]
    uid, euid, *_ = (uids.inside(int(field)) for field in status["Uid"].split())
    gid, egid, *_ = (gids.inside(int(field)) for field in status["Gid"].split())
    args = _printable(words.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace"))
    comm = _printable(comm)
    return Process(
        pid=pid,
        ppid=ppid,
        pgid=pgid,
        sid=sid,
        state=state,
        comm=comm,
        args=args or f"[{comm}]" + (" <defunct>" if state == "Z" else ""),
        tty=_terminal(terminal),
        tpgid=tpgid,
        flags=flags,
        cpu=(utime + stime) / _TICKS,
        started=_boot() + start // _TICKS,
        age=max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - start / _TICKS),
        priority=priority,
        nice=nice,
        threads=threads,
        vsize=vsize,
        rss=int(status.get("VmRSS", "0").split()[0]) << 10,  # the one in stat may be some pages behind
        processor=numbers[35],
        locked=status.get("VmLck", "0").split()[0] != "0",
        uid=uid,
        euid=euid,
        gid=gid,
        egid=egid,
    )


@functools.cache
def _boot() -> int:
    for line in Path("/proc/stat").read_text(encoding="ascii").splitlines():
        if line.startswith("btime "):
            return int(line.split()[1])
    return 0


def _terminal(number: int) -> str:
    """The device's name in the container, as far as containers have them."""
    major, minor = os.major(number), os.minor(number)
    if 136 <= major <= 143:  # Unix98 pseudo-terminals
        return f"pts/{(major - 136) * 256 + minor}"
    return {4: f"tty{minor}", 5: "console"}.get(major, "?")


def _printable(text: str) -> str:
    """A process chooses these words: they must not steer whoever's terminal shows them."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
