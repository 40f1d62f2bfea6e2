"""The environment of a container's processes."""

from __future__ import annotations

from collections.abc import Iterable

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def merge(below: Iterable[str], above: Iterable[str]) -> list[str]:
    """Later values win and keep the place of the first. An entry without `=` takes the variable away."""
    values: dict[str, str | None] = {}
    for entry in (*below, *above):
        name, equals, _ = entry.partition("=")
        if name:
            values[name] = entry if equals else None
    return [entry for entry in values.values() if entry is not None]


def complete(env: Iterable[str], *, hostname: str, home: str, tty: bool) -> list[str]:
    """What every process finds: PATH, HOSTNAME, TERM on a terminal, HOME. What the user said wins, but for an empty
    HOME, which is none."""
    below = [f"PATH={PATH}", f"HOSTNAME={hostname}", *(["TERM=xterm"] if tty else [])]
    whole = [entry for entry in merge(below, env) if entry != "HOME="]
    if not any(entry.startswith("HOME=") for entry in whole):
        whole.append(f"HOME={home}")
    return whole
