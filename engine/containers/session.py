"""A conversation with a process: what it writes, and what is typed to it. Attach and exec both give one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Literal, Protocol

Stream = Literal["stdout", "stderr"]


class Session(Protocol):
    """The near end of a process's standard streams. With a terminal everything arrives as stdout."""

    tty: bool

    def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        """What is written, in order, until the process has closed its streams. To be iterated once."""

    async def write(self, data: bytes) -> None:
        """Types to the process, as fast as it reads. Without an open stdin the bytes are dropped."""

    async def close_stdin(self) -> None:
        """The process reads end-of-file; its output goes on."""

    async def close(self) -> None:
        """Leaves. The process lives on."""
