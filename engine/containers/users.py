"""Who a container's process is: `--user` looked up in the image's own passwd and group files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engine.containers.layered import Layered
from engine.errors import InvalidInput

_LARGEST_ID = 2**31 - 1
_LONGEST_LINE = 64 << 10


@dataclass(frozen=True)
class ResolvedUser:
    """Numbers as seen inside the container. `groups` has the primary group, too, as Docker gives it to a process."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/"
    name: str = ""


def resolve(user: str, group_add: Sequence[str], files: Layered) -> ResolvedUser:
    """`USER[:GROUP]`, each a name or a number, as runc's rules have it.

    A number needs no entry in the files; a name does. Without `:GROUP` the primary group is the user's own,
    and the supplementary groups those that list the user. Raises InvalidInput ("unable to find user x").
    """
    passwd = files.read("/etc/passwd") or b""
    group = files.read("/etc/group") or b""
    return resolve_in(user, group_add, passwd, group)


def resolve_in(user: str, group_add: Sequence[str], passwd: bytes, group: bytes) -> ResolvedUser:
    """The same, with the two files' contents. Pure."""
    wanted, _, wanted_group = user.partition(":")
    wanted = wanted or "0"
    number = _number(wanted)
    uid, gid, home, name = number if number is not None else -1, 0, "/", ""
    for fields in _entries(passwd, 6):
        entry_uid, entry_gid = _id(fields[2]), _id(fields[3])
        if entry_uid is None or entry_gid is None:
            continue
        if fields[0] == wanted or (number is not None and entry_uid == number):
            uid, gid, home, name = entry_uid, entry_gid, fields[5] or "/", fields[0]
            break
    else:
        if number is None:
            raise InvalidInput(f"unable to find user {_shown(wanted)}: no matching entries in passwd file")
    groups: list[int] = []
    if wanted_group:
        gid = _group(wanted_group, group)
    elif name:
        for fields in _entries(group, 3):
            entry = _id(fields[2])
            if entry is not None and len(fields) > 3 and name in fields[3].split(","):
                groups.append(entry)
    groups += [_group(extra, group) for extra in group_add]
    return ResolvedUser(uid, gid, tuple(dict.fromkeys([gid, *groups])), home, name)


def names(entries: bytes) -> dict[int, str]:
    """Who has which id, of a passwd or a group file; the first of several."""
    found: dict[int, str] = {}
    for fields in _entries(entries, 3):
        known = _id(fields[2])
        if known is not None:
            found.setdefault(known, fields[0])
    return found


def _group(wanted: str, group: bytes) -> int:
    number = _number(wanted)
    for fields in _entries(group, 3):
        entry = _id(fields[2])
        if entry is not None and (fields[0] == wanted or entry == number):
            return entry
    if number is None:
        raise InvalidInput(f"Unable to find group {_shown(wanted)}: no matching entries in group file")
    return number


def _entries(content: bytes, fields: int) -> Iterator[list[str]]:
    for line in content.split(b"\n"):
        if len(line) > _LONGEST_LINE or line.startswith(b"#"):
            continue
        parts = line.decode(errors="replace").strip().split(":")
        if len(parts) >= fields:
            yield parts


def _number(text: str) -> int | None:
    """The number that the user wrote; None for a name. Raises InvalidInput."""
    if not (text.isascii() and text.removeprefix("-").isdigit()):
        return None
    value = _id(text)
    if value is None:
        raise InvalidInput(f"uids and gids must be in range 0-{_LARGEST_ID}: {_shown(text)}")
    return value


def _id(text: str) -> int | None:
    """A number of the image's files; None for what can't be one."""
    if not (text.isascii() and text.isdigit()) or len(text) > 10 or int(text) > _LARGEST_ID:
        return None
    return int(text)


def _shown(text: str) -> str:
    short = text if len(text) < 80 else text[:80] + "…"
    return short if short.isprintable() else repr(short)
