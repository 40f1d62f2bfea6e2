"""`ADD --checksum` of a file that is downloaded."""

from __future__ import annotations

import re

from engine.build.problems import DockerfileError

_CHECKSUM = re.compile(r"(sha256|sha384|sha512):([0-9a-f]+)\Z")
_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}


def check_checksum(checksum: str) -> None:
    """Raises DockerfileError for what is no checksum of a file."""
    match = _CHECKSUM.match(checksum)
    if match is None or len(match.group(2)) != _LENGTHS[match.group(1)]:
        raise DockerfileError(f"invalid checksum {checksum}: write it as sha256: and 64 hexadecimal digits")
