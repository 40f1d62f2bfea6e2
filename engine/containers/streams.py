"""A container's standard streams: joining them, reading what they said, and the size of its terminal."""

from __future__ import annotations

from engine.containers.attach import AttachSession
from engine.containers.logs import Reading, Selection
from engine.containers.model import Container
from engine.containers.room import Room
from engine.containers.session import Session
from engine.errors import Conflict, InvalidInput


class Streams:
    """`docker attach` and `docker logs`."""

    def __init__(self, room: Room) -> None:
        self._room = room

    async def attach(
        self,
        container: Container,
        *,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        logs: bool = False,
        stream: bool = True,
    ) -> Session:
        """Joins the streams, even before the start. With `logs` the log so far comes first; without `stream` nothing
        comes after it."""
        live = self._room.registry.live(container)
        config = container.config
        session = AttachSession(
            container.id,
            tty=config.tty,
            stdin=stdin and config.open_stdin,
            stdout=stdout,
            stderr=stderr,
            stdin_once=config.stdin_once,
        )
        if logs and container.host_config.log_config.type != "none":
            session.log = lambda until: self.logs(container, stdout=stdout, stderr=stderr, until=until)
        if not stream:
            session.abandon()
            return session
        async with live.lock:
            if container.state.status == "paused":
                raise Conflict(f"container {container.short_id} is paused, unpause the container before attach")
            if container.state.alive:
                await session.bind(self._room.launcher)
            elif container.state.status == "restarting":
                raise Conflict(f"container {container.short_id} is restarting, wait until it runs")
            else:
                live.pending = [*(one for one in live.pending if not one.closed), session]
        self._room.tell(container, "attach")
        return session

    def detached(self, container: Container) -> None:
        """Someone left its terminal by the keys for it, and it goes on."""
        self._room.tell(container, "detach")

    async def resize(self, container: Container, rows: int, cols: int) -> None:
        if not container.state.alive:
            raise Conflict(f"container {container.id} is not running")
        if not container.config.tty:
            raise InvalidInput(f"container {container.short_id} has no terminal")
        await self._room.launcher.resize(container.id, rows, cols)
        self._room.tell(container, "resize", {"height": str(rows), "width": str(cols)})

    def logs(
        self,
        container: Container,
        *,
        follow: bool = False,
        since: int = 0,
        until: int = 0,
        tail: int | None = None,
        stdout: bool = True,
        stderr: bool = True,
    ) -> Reading:
        """(stream, time in unix ns, bytes as written, newline included). `since` and `until` in unix ns."""
        if container.host_config.log_config.type == "none":
            raise InvalidInput("configured logging driver does not support reading")
        selection = Selection(since, until, tail, stdout, stderr)
        path = self._room.registry.paths(container).log
        return Reading(path, selection, follow=follow, ended=lambda: not container.state.running)
