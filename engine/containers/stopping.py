"""Ending, freezing and signalling a container."""

from __future__ import annotations

import asyncio
import signal as std_signal
from typing import TYPE_CHECKING

from engine.containers import signals
from engine.containers.live import Live
from engine.containers.model import Container
from engine.containers.room import Room
from engine.errors import Conflict

if TYPE_CHECKING:
    from engine.runtime.launcher import Exit

_TIMEOUT = 10
_AFTER_KILL = 10.0


def exit_of(live: Live) -> asyncio.Future[Exit]:
    """The next exit. Ask before the signal is sent."""
    future: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
    live.stopped.append(future)
    return future


async def stop(
    room: Room,
    container: Container,
    live: Live,
    timeout: int | None,
    signal: str | None,
    *,
    by_user: bool = True,
) -> bool:
    """The stop signal, `timeout` seconds of patience (negative: for ever), then SIGKILL.

    Returns False when it was not running. Between two restarts it just stays down.
    """
    state = container.state
    async with live.lock:
        live.cancel_restart()
        if state.status == "restarting":
            state.status, container.stopped_by_user = "exited", by_user
            room.registry.save(container)
            return True
        if not state.alive:
            return False
        container.stopped_by_user = by_user
        live.stop_started = True
        room.registry.save(container)
        if state.status == "paused":
            await unfreeze(room, container)
    number = signals.number(signal or container.config.stop_signal or "TERM")
    if timeout is None:
        timeout = container.config.stop_timeout if container.config.stop_timeout is not None else _TIMEOUT
    ended = exit_of(live)
    room.tell(container, "kill", {"signal": str(number)})
    await room.launcher.kill(container.id, number)
    if state.alive:
        done, _ = await asyncio.wait([ended], timeout=None if timeout < 0 else timeout)
        if not done:
            await _kill_hard(room, container, ended)
    async with live.lock:
        # Its ports and addresses are free again: whoever waited for that starts the next one now.
        pass
    room.tell(container, "stop")
    return True


async def _kill_hard(room: Room, container: Container, ended: asyncio.Future[Exit]) -> None:
    room.tell(container, "kill", {"signal": "9"})
    await room.launcher.kill(container.id, std_signal.SIGKILL, all=True)
    done, _ = await asyncio.wait([ended], timeout=_AFTER_KILL)
    if not done:
        raise Conflict(f"container {container.short_id} did not end after SIGKILL: a process hangs in the kernel")


async def kill(room: Room, container: Container, live: Live, signal: str) -> None:
    """Sends a signal to the first process. SIGKILL returns when it is gone, and undoes a pause."""
    number = signals.number(signal)
    state = container.state
    if state.status == "restarting" and number == std_signal.SIGKILL:
        await stop(room, container, live, 0, None)
        return
    if not state.alive:
        raise Conflict(f"container {container.id} is not running")
    ends = number in (std_signal.SIGKILL, signals.number(container.config.stop_signal or "TERM"))
    if ends:
        container.stopped_by_user = True
        room.registry.save(container)
    room.tell(container, "kill", {"signal": str(number)})
    ended = exit_of(live) if number == std_signal.SIGKILL else None
    await room.launcher.kill(container.id, number)
    if ended is not None:
        if state.status == "paused":
            async with live.lock:
                await unfreeze(room, container)
        if state.alive:
            await asyncio.wait([ended], timeout=_AFTER_KILL)


async def freeze(room: Room, container: Container) -> None:
    """With the lock held. Raises Conflict."""
    state = container.state
    if state.status == "paused":
        raise Conflict(f"Container {container.id} is already paused")
    if state.status != "running":
        raise Conflict(f"Container {container.id} is not running")
    await room.launcher.pause(container.id)
    state.status = "paused"
    room.registry.save(container)
    room.tell(container, "pause")


async def unfreeze(room: Room, container: Container) -> None:
    """With the lock held. Raises Conflict."""
    if container.state.status != "paused":
        raise Conflict(f"Container {container.id} is not paused")
    await room.launcher.resume(container.id)
    container.state.status = "running"
    room.registry.save(container)
    room.tell(container, "unpause")
