"""Joining a container's streams, before its start or while it runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, cast

from engine.containers import pipes
from engine.containers.logs import Reading
from engine.containers.session import Stream

if TYPE_CHECKING:
    from engine.runtime.launcher import Launcher


class AttachSession:
    """A `Session` on a container's first process. Made before the start, it misses nothing."""

    def __init__(
        self, container_id: str, *, tty: bool, stdin: bool, stdout: bool, stderr: bool, stdin_once: bool
    ) -> None:
        self.tty = tty
        self._id = container_id
        self._stdin, self._stdout, self._stderr = stdin, stdout, stderr
        self._stdin_once = stdin_once
        self._launcher: Launcher | None = None
        self._bound = asyncio.Event()
        self._readers: dict[str, pipes.Reader] = {}
        self._writer: pipes.Writer | None = None
        self._closed = asyncio.Event()
        self.log: Callable[[int], Reading] | None = None
        """Gives what was written until a time, to be told first."""
        self._since = 0

    @property
    def closed(self) -> bool:
        """Whether its client has left."""
        return self._closed.is_set()

    async def bind(self, launcher: Launcher) -> None:
        """Connects to the process, which is there but need not run yet."""
        if self._closed.is_set() or self._bound.is_set():
            return
        attachment = await launcher.attach(self._id, unfinished=self.log is not None)
        self._since = attachment.at
        if self._closed.is_set():
            attachment.close()
            return
        self._launcher = launcher
        self._readers["stdout"] = pipes.Reader(attachment.stdout)
        if attachment.stderr is not None:
            self._readers["stderr"] = pipes.Reader(attachment.stderr)
        if attachment.stdin is not None:
            self._writer = pipes.Writer(attachment.stdin)
            if not self._stdin:
                self._drop_stdin()
        self._bound.set()

    def abandon(self) -> None:
        """Nothing will ever run: the output ends."""
        self._bound.set()

    async def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        await self._bound.wait()
        if self.log is not None:
            async with contextlib.aclosing(aiter(self.log(self._since))) as lines:
                async for stream, _, data in lines:
                    yield stream, data
        async with contextlib.aclosing(pipes.merged(self._readers)) as pieces:
            async for name, data in pieces:
                if self._stdout if name == "stdout" else self._stderr:
                    yield cast(Stream, name), data

    async def write(self, data: bytes) -> None:
        await self._bound.wait()
        if self._writer is not None and self._stdin:
            await self._writer.write(data)

    async def close_stdin(self) -> None:
        """The process reads end-of-file, if the container's stdin was for one client only."""
        if not self._stdin or self.tty:
            return
        await self._bound.wait()
        self._drop_stdin()
        if self._stdin_once and self._launcher is not None:
            await self._launcher.close_stdin(self._id)

    def _drop_stdin(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    async def close(self) -> None:
        self._closed.set()
        self._drop_stdin()
        for reader in self._readers.values():
            reader.close()
        self._bound.set()
