"""API versions: `/v1.41/...` asks for one, no prefix means the newest."""

from __future__ import annotations

import re

from engine.api.errors import VersionTooOld

NEWEST = (1, 47)
OLDEST = (1, 24)

_PREFIX = re.compile(r"/v(\d{1,3})\.(\d{1,3})(?=/|$)", re.ASCII)

Version = tuple[int, int]


def text(version: Version) -> str:
    return f"{version[0]}.{version[1]}"


def split(path: str) -> tuple[Version, str]:
    """The wanted version, and the path without it. Raises VersionTooOld for what is not spoken here."""
    match = _PREFIX.match(path)
    if match is None:
        return NEWEST, path
    version = (int(match[1]), int(match[2]))
    if version < OLDEST:
        raise VersionTooOld(
            f"client version {text(version)} is too old. Minimum supported API version is {text(OLDEST)}, "
            "please upgrade your client to a newer version"
        )
    if version > NEWEST:
        raise VersionTooOld(
            f"client version {text(version)} is too new. Maximum supported API version is {text(NEWEST)}"
        )
    return version, path[match.end() :] or "/"
