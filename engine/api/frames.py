"""Docker's framing of two streams over one connection (stdcopy).

Each frame is: one byte for the stream (1 stdout, 2 stderr), three zero bytes, four bytes of length, payload.
"""

from __future__ import annotations

import struct

_HEADER = struct.Struct(">BxxxL")
_NUMBER = {"stdout": 1, "stderr": 2}

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"


def frame(stream: str, data: bytes) -> bytes:
    """One frame."""
    return _HEADER.pack(_NUMBER[stream], len(data)) + data


def media_type(*, tty: bool, version: tuple[int, int]) -> str:
    """What the stream is called. Clients before API 1.42 knew one name for both kinds."""
    return RAW if tty or version < (1, 42) else MULTIPLEXED
