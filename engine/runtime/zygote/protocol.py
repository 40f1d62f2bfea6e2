"""The words between the launcher and the zygote: one JSON object a packet, descriptors beside it.

A request has `id`, `op` and the operation's own keys; its reply has the same `id` and either `ok` or `error`
(`{"errno", "message", "stage"}`). Events have `event` and no `id`. Standard library only.
"""

from __future__ import annotations

import array
import json
import mmap
import os
import socket

TYPE_CHECKING = False  # typing is half a megabyte, and all of the zygote's children would carry it
if TYPE_CHECKING:
    from typing import Any

VERSION = 2
"""What is spoken here. A daemon joins only a zygote of its own version: one more with each change that the other side
would misunderstand. Those who do not tell theirs speak 1."""

MAX_PACKET = 4 << 20
MAX_DESCRIPTORS = 8
MOST_HANDED_OVER = 32
"""To one who waits in the pool: a request, the doors of a control group, three streams."""
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33


# Pages of it that no packet has reached take no memory.
_incoming = memoryview(mmap.mmap(-1, MAX_PACKET))


def widen(sock: socket.socket) -> None:
    """Lets a packet be as large as MAX_PACKET."""
    for option in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
        sock.setsockopt(socket.SOL_SOCKET, option, 2 * MAX_PACKET)


def send(sock: socket.socket, message: dict[str, Any], descriptors: tuple[int, ...] = (), *, spec: bytes = b"") -> None:
    """`spec` is JSON already, and becomes the message's `spec`."""
    raw = json.dumps(message, separators=(",", ":")).encode()
    if spec:
        raw = b'%b,"spec":%b}' % (raw[:-1], spec)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    # A peer that does not read must not stop us: its socket's buffer is all the patience there is.
    sock.sendmsg([raw], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def send_raw(sock: socket.socket, message: bytes, descriptors: tuple[int, ...] = ()) -> None:
    """A bare word to a child, with the descriptors that it needs."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    sock.sendmsg([message], rights, socket.MSG_NOSIGNAL)


def receive_raw(sock: socket.socket, most: int) -> tuple[bytes, list[int]]:
    """The other end of `send_raw`, with room for `most` descriptors."""
    space = socket.CMSG_SPACE(most * array.array("i").itemsize)
    message, ancillary, _, _ = sock.recvmsg(256, space, socket.MSG_CMSG_CLOEXEC)
    return message, descriptors_in(ancillary)


def receive(sock: socket.socket) -> tuple[dict[str, Any], list[int], bytes] | None:
    """The next packet, its descriptors, which are the caller's to close, and its bytes; None at the end."""
    space = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)
    length, ancillary, flags, _ = sock.recvmsg_into([_incoming], space, socket.MSG_CMSG_CLOEXEC)
    descriptors = descriptors_in(ancillary)
    if not length:
        return None
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        for descriptor in descriptors:
            os.close(descriptor)
        raise OSError(90, "a packet was larger than the protocol allows")
    raw = _incoming[:length].tobytes()
    return json.loads(raw), descriptors, raw


def descriptors_in(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    """What recvmsg(2) gave beside a packet."""
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)


def failure(error: OSError, stage: str = "") -> dict[str, Any]:
    """An OSError as the `error` of a reply."""
    what = f" ({error.filename})" if error.filename else ""
    return {"errno": error.errno or 0, "message": f"{error.strerror or error}{what}", "stage": stage}
