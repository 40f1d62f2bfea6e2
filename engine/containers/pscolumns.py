"""The columns of ps(1): what each is called, and what it shows of a process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from engine.containers.processes import Process

_DAY = 86400


@dataclass(frozen=True)
class Surroundings:
    """What the columns need besides the process."""

    now: float
    memory: int
    """Bytes of the host."""
    users: Mapping[int, str]
    groups: Mapping[int, str]


Show = Callable[[Process, Surroundings], object]


def _user(uid: int, around: Surroundings) -> str:
    return around.users.get(uid, str(uid))


def _group(gid: int, around: Surroundings) -> str:
    return around.groups.get(gid, str(gid))


def _clock(seconds: float, *, hours: bool) -> str:
    """[DD-]HH:MM:SS; without `hours` as short as ps's elapsed time."""
    days, rest = divmod(int(seconds), _DAY)
    text = f"{rest // 60 % 60:02}:{rest % 60:02}"
    if hours or days or rest >= 3600:
        text = f"{rest // 3600:02}:{text}"
    return f"{days}-{text}" if days else text


def _start(process: Process, around: Surroundings) -> str:
    then, now = time.localtime(process.started), time.localtime(around.now)
    if process.age < _DAY:
        return time.strftime("%H:%M", then)
    return time.strftime("%b%d" if then.tm_year == now.tm_year else "%Y", then)


def _load(process: Process) -> float:
    """Percent of one CPU over its whole life."""
    return 100 * process.cpu / max(0.1, process.age)


def _tenths(percent: float) -> str:
    """Cut off, as ps does."""
    return f"{int(percent * 10) / 10:.1f}"


def _stat(process: Process, _: Surroundings) -> str:
    marks = (
        ("<", process.nice < 0),
        ("N", process.nice > 0),
        ("L", process.locked),
        ("s", process.sid == process.pid),
        ("l", process.threads > 1),
        ("+", process.tpgid == process.pgid),
    )
    return process.state + "".join(mark for mark, there in marks if there)


_COLUMNS: dict[str, tuple[str, Show]] = {
    "pid": ("PID", lambda p, _: p.pid),
    "ppid": ("PPID", lambda p, _: p.ppid),
    "pgid": ("PGID", lambda p, _: p.pgid),
    "sid": ("SID", lambda p, _: p.sid),
    "user": ("USER", lambda p, a: _user(p.euid, a)),
    "ruser": ("RUSER", lambda p, a: _user(p.uid, a)),
    "uid": ("UID", lambda p, _: p.euid),
    "ruid": ("RUID", lambda p, _: p.uid),
    "uid_name": ("UID", lambda p, a: _user(p.euid, a)),  # what -f shows under that title
    "group": ("GROUP", lambda p, a: _group(p.egid, a)),
    "rgroup": ("RGROUP", lambda p, a: _group(p.gid, a)),
    "gid": ("GID", lambda p, _: p.egid),
    "rgid": ("RGID", lambda p, _: p.gid),
    "comm": ("COMMAND", lambda p, _: p.comm),
    "ucmd": ("CMD", lambda p, _: p.comm),
    "args": ("COMMAND", lambda p, _: p.args),
    "cmd": ("CMD", lambda p, _: p.args),
    "tname": ("TTY", lambda p, _: p.tty),
    "tty": ("TT", lambda p, _: p.tty),
    "tpgid": ("TPGID", lambda p, _: p.tpgid),
    "time": ("TIME", lambda p, _: _clock(p.cpu, hours=True)),
    "times": ("TIME", lambda p, _: int(p.cpu)),
    "bsdtime": ("TIME", lambda p, _: f"{int(p.cpu) // 60}:{int(p.cpu) % 60:02}"),
    "etime": ("ELAPSED", lambda p, a: _clock(p.age, hours=False)),
    "etimes": ("ELAPSED", lambda p, a: int(p.age)),
    "stime": ("STIME", _start),
    "start_time": ("START", _start),
    "lstart": ("STARTED", lambda p, _: time.strftime("%a %b %e %H:%M:%S %Y", time.localtime(p.started))),
    "c": ("C", lambda p, a: min(99, int(_load(p)))),
    "pcpu": ("%CPU", lambda p, a: _tenths(_load(p))),
    "pmem": ("%MEM", lambda p, a: _tenths(100 * p.rss / a.memory)),
    "rss": ("RSS", lambda p, _: p.rss >> 10),
    "vsz": ("VSZ", lambda p, _: p.vsize >> 10),
    "sz": ("SZ", lambda p, _: p.vsize >> 12),
    "stat": ("STAT", _stat),
    "s": ("S", lambda p, _: p.state),
    "ni": ("NI", lambda p, _: p.nice),
    "pri": ("PRI", lambda p, _: 39 - p.priority),
    "opri": ("PRI", lambda p, _: 60 + p.priority),  # what -l shows
    "psr": ("PSR", lambda p, _: p.processor),
    "nlwp": ("NLWP", lambda p, _: p.threads),
    "f": ("F", lambda p, _: f"{p.flags >> 6 & 7:x}"),
}
_ALIASES = {
    alias: name
    for name, aliases in {
        "pgid": "pgrp",
        "sid": "sess session",
        "tty": "tt",
        "user": "euser uname",
        "uid": "euid",
        "gid": "egid",
        "group": "egroup",
        "comm": "ucomm",
        "args": "command",
        "time": "cputime",
        "times": "cputimes",
        "start_time": "bsdstart",
        "pcpu": "%cpu",
        "pmem": "%mem",
        "rss": "rssize rsz",
        "vsz": "vsize",
        "s": "state",
        "ni": "nice",
        "nlwp": "thcount",
        "f": "flag flags",
    }.items()
    for alias in aliases.split()
}


def find(name: str) -> tuple[str, Show] | None:
    """(title, what to show) of one of ps's format specifiers; None where there is none of that name."""
    return _COLUMNS.get(_ALIASES.get(name, name))
