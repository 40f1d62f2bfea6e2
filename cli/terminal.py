"""This command's stdin and stdout as those of a container: a terminal when both are one, else plain streams."""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

_PIECE = 64 * 1024


def is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


@contextmanager
def raw(resize: Callable[[int, int], None]) -> Iterator[None]:
    """Keys go through as they are; the far terminal gets this one's size, now and whenever it changes."""

    def tell(*_: object) -> None:
        size = os.get_terminal_size(sys.stdout.fileno())
        resize(size.lines, size.columns)

    stdin = sys.stdin.fileno()
    before = termios.tcgetattr(stdin)
    handler = signal.signal(signal.SIGWINCH, tell)
    try:
        tty.setraw(stdin, termios.TCSADRAIN)  # the default throws away what was typed ahead
        tell()
        yield
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)
        signal.signal(signal.SIGWINCH, handler)


def pump(connection: socket.socket, *, framed: bool) -> None:
    """Carries stdin there, and what comes to stdout and stderr, until the far side has said all.

    `framed`: Docker's multiplexed stream, eight bytes before each piece.
    """
    stdin = sys.stdin.fileno()
    write = _unframed() if framed else _to(sys.stdout.fileno())
    connection.setblocking(False)  # the far side may have much to say before it reads on
    sources: list[Any] = [connection, stdin]
    unsent = b""
    while True:
        ready, writable, _ = select.select(sources, [connection] if unsent else [], [])
        if connection in ready:
            data = b""
            with suppress(ConnectionResetError):  # it has ended, and not read all
                data = connection.recv(_PIECE)
            if not data:
                return
            write(data)
        if connection in writable:
            unsent = _sent(connection, unsent)
            if not unsent:
                sources.append(stdin)
        if stdin in ready:
            sources.remove(stdin)
            unsent = os.read(stdin, _PIECE)
            if not unsent:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_WR)


def _sent(connection: socket.socket, data: bytes) -> bytes:
    """What there is no room for yet. To whoever reads no more all is lost."""
    try:
        return data[connection.send(data) :]
    except BlockingIOError:
        return data
    except (BrokenPipeError, ConnectionResetError):
        return b""


def _to(target: int) -> Callable[[bytes], None]:
    def write(data: bytes) -> None:
        while data:
            data = data[os.write(target, data) :]

    return write


def _unframed() -> Callable[[bytes], None]:
    targets = {1: _to(sys.stdout.fileno()), 2: _to(sys.stderr.fileno())}
    held = bytearray()

    def write(data: bytes) -> None:
        held.extend(data)
        while len(held) >= 8:
            stream, size = struct.unpack(">BxxxL", held[:8])
            if len(held) < 8 + size:
                return
            targets.get(stream, targets[1])(bytes(held[8 : 8 + size]))
            del held[: 8 + size]

    return write
