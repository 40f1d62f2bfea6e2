"""Values as people read them. Times are UTC here; the browser turns them into how long ago that was."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from pipeline.values import format_duration

_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]|[\x00-\x08\x0b-\x1f\x7f]"
)
_WORDS = {
    "reverting": "being undone",
    "reverted": "undone",
    "baking": "watched",
    "updating": "being updated",
    "dispatched": "queued",
    "ready": "queued",
    "waiting": "waits for approval",
}
_LOOKS = {
    "passed": "good", "done": "good", "live": "good", "healthy": "good", "online": "good", "updated": "good",
    "failed": "bad", "lost": "bad", "unhealthy": "bad", "exited": "bad",
    "running": "busy", "rolling": "busy", "baking": "busy", "updating": "busy", "starting": "busy", "claimed": "busy",
    "reverting": "warn", "reverted": "warn", "waiting": "warn", "draining": "warn",
}  # fmt: skip


def word(state: str) -> str:
    """A state in plain words."""
    return _WORDS.get(str(state), str(state))


def look(state: str) -> str:
    """The one of good, bad, busy, warn and idle that a state is shown as."""
    return _LOOKS.get(str(state), "idle")


def moment(seconds: float) -> str:
    """`25 Nov 01:33:07`"""
    return datetime.fromtimestamp(seconds, UTC).strftime("%d %b %H:%M:%S").lstrip("0")


def machine_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def short(sha: str) -> str:
    """The first digits of a commit or a digest, as git shows them."""
    return sha.removeprefix("sha256:")[:8]


def plain(line: str) -> str:
    """A log line without what steers terminals."""
    return _CONTROL.sub("", line.rpartition("\r")[2] if "\r" in line.rstrip("\r") else line)


def plural(number: int, noun: str) -> str:
    """`1 host`, `2 hosts`"""
    return f"{number} {noun}{'' if number == 1 else 's'}"


FILTERS = {
    "word": word,
    "look": look,
    "moment": moment,
    "machine_time": machine_time,
    "short": short,
    "plain": plain,
    "plural": plural,
    "duration": format_duration,
}
