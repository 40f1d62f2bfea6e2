"""The options of `RUN --mount`.

https://docs.docker.com/reference/dockerfile/#run---mount
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from engine.build.csvfields import read_fields
from engine.build.durations import parse_size
from engine.build.problems import DockerfileError, did_you_mean

TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
SHARING = ("shared", "private", "locked")
_KEYS = (
    "type", "from", "source", "target", "readonly", "id", "sharing", "required", "size", "mode", "uid", "gid",
    "src", "dst", "destination", "ro", "rw", "readwrite", "env",
)  # fmt: skip
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


@dataclass(frozen=True)
class Mount:
    """One mount of a RUN. `size` in bytes, 0 for no limit; `mode`, `uid`, `gid` None where not given."""

    type: str = "bind"
    origin: str = ""  # from: a stage or an image; empty for the build context
    source: str = ""
    target: str = ""
    read_only: bool = True
    size: int = 0
    id: str = ""
    sharing: str = ""
    required: bool = False
    env: str | None = None  # the variable that holds a secret; empty for the secret's own name
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None


def check_mount(text: str) -> None:
    """What can be said before variables are known. Raises DockerfileError."""
    for field in read_fields(text):
        key, equals, value = field.partition("=")
        if equals and key.lower() == "from" and "$" in value[:-1]:
            raise DockerfileError("'from' doesn't support variable expansion, define alias stage instead")


def parse_mount(text: str, expand: Callable[[str], str]) -> Mount:
    """The whole option, each value expanded. Raises DockerfileError."""
    found: dict[str, str] = {}
    kind = "bind"
    read_only: bool | None = None
    required = False
    for field in read_fields(text):
        key, equals, value = field.partition("=")
        key = key.lower()
        if not equals and key not in ("readonly", "ro", "readwrite", "rw", "required"):
            raise DockerfileError(f"invalid field '{field}' must be a key=value pair")
        value = expand(value) if equals else "true"
        if key not in _KEYS:
            raise DockerfileError(f"unexpected key '{key}' in '{field}'{did_you_mean(key, _KEYS)}")
        if key == "type":
            kind = value.lower()
            if kind not in TYPES:
                raise DockerfileError(f'unsupported mount type "{value}"{did_you_mean(value, TYPES)}')
        elif key in ("readonly", "ro", "readwrite", "rw"):
            read_only = boolean(key, value) == (key in ("readonly", "ro"))
        elif key == "required":
            if kind not in ("secret", "ssh"):
                raise DockerfileError(f"unexpected key 'required' for mount type '{kind}'")
            required = boolean(key, value)
        elif key == "size" and kind != "tmpfs":
            raise DockerfileError(f"unexpected key 'size' for mount type '{kind}'")
        else:
            found[{"src": "source", "dst": "target", "destination": "target"}.get(key, key)] = value
    mount = Mount(
        type=kind,
        origin=found.get("from", ""),
        source=found.get("source", ""),
        target=found.get("target", ""),
        read_only=kind not in ("cache", "tmpfs") if read_only is None else read_only,
        size=_size(found.get("size", "")),
        id=found.get("id", ""),
        sharing=_sharing(found.get("sharing")),
        required=required,
        env=found.get("env"),
        mode=_number(found.get("mode"), "mode", 8),
        uid=_number(found.get("uid"), "uid", 10),
        gid=_number(found.get("gid"), "gid", 10),
    )
    _check_together(mount)
    return mount


def boolean(key: str, value: str) -> bool:
    """As Go's strconv.ParseBool has it. Raises DockerfileError."""
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise DockerfileError(f"invalid value for {key}: {value}")


def _size(value: str) -> int:
    try:
        return parse_size(value) if value else 0
    except ValueError:
        raise DockerfileError(f"invalid value for size: {value}") from None


def _sharing(value: str | None) -> str:
    if value is not None and value.lower() not in SHARING:
        raise DockerfileError(f'unsupported sharing value "{value}"{did_you_mean(value, SHARING)}')
    return value.lower() if value else ""


def _number(value: str | None, name: str, base: int) -> int | None:
    if value is None:
        return None
    digits = r"[0-7]{1,11}" if base == 8 else r"[0-9]{1,10}"
    if not re.fullmatch(digits, value) or int(value, base) >= 1 << 32:
        raise DockerfileError(f"invalid value {value} for {name}")
    return int(value, base)


def _check_together(mount: Mount) -> None:
    if mount.type not in ("secret", "ssh", "cache"):
        for name, value in (("mode", mount.mode), ("uid", mount.uid), ("gid", mount.gid)):
            if value is not None:
                raise DockerfileError(f'{name} not allowed for "{mount.type}" type mounts')
    if mount.type == "secret":
        if mount.origin:
            raise DockerfileError("secret mount should not have a from")
        if mount.sharing:
            raise DockerfileError("secret mount should not define sharing")
        if not (mount.source or mount.target or mount.id):
            raise DockerfileError("invalid secret mount. one of source, target required")
        if mount.source and mount.id:
            raise DockerfileError("both source and id can't be set")
    if mount.type == "ssh" and mount.source:
        raise DockerfileError("ssh does not support source")
    if mount.sharing and mount.type != "cache":
        raise DockerfileError(f"invalid cache sharing set for {mount.type} mount")
