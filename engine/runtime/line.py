"""The connection to a zygote: each answer finds who asked, and what else it tells is handed on."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import Any

from engine.errors import Conflict, EngineError, NotFound, SystemFailure
from engine.runtime.model import ExecFailed
from engine.runtime.zygote import protocol

_ENOENT, _EEXIST = 2, 17


class Line:
    """On the loop. `on_event` is called with what nobody asked for, `on_lost` when the other end is gone and whoever
    waited for an answer has been told."""

    def __init__(self, on_event: Callable[[dict[str, Any]], None], on_lost: Callable[[SystemFailure], None]) -> None:
        self.lost = False
        self.up = asyncio.Event()
        """Whether there is another end."""
        self.gone = asyncio.Event()
        """Whether the other end of the last connection is gone."""
        self._on_event, self._on_lost = on_event, on_lost
        self._socket: socket.socket
        self._pending: dict[int, asyncio.Future[tuple[dict[str, Any], list[int]]]] = {}
        self._number = 0

    def open(self, joined: socket.socket) -> None:
        joined.setblocking(False)
        protocol.widen(joined)
        self._socket = joined
        asyncio.get_running_loop().add_reader(joined.fileno(), self._readable)
        self.lost = False
        self.gone.clear()
        self.up.set()

    def close(self) -> None:
        """Leaves, if the other end has not."""
        if not self.lost:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()

    async def ask(
        self, op: str, request: dict[str, Any], fds: tuple[int, ...] = (), *, spec: bytes = b""
    ) -> tuple[dict[str, Any], list[int]]:
        """The answer and the descriptors that came with it, which are the caller's. Raises what it tells of."""
        self._number += 1
        number = self._number
        future = self._pending[number] = asyncio.get_running_loop().create_future()
        try:
            await self._send({"id": number, "op": op, **request}, fds, spec)
            answer, received = await future
        except BaseException:
            self._pending.pop(number, None)
            # Whoever asked may have gone when the answer was here: nobody else knows of its descriptors.
            if future.done() and not future.cancelled() and future.exception() is None:
                for fd in future.result()[1]:
                    os.close(fd)
            raise
        if "error" in answer:
            raise _as_error(answer["error"])
        return answer["ok"], received

    async def _send(self, message: dict[str, Any], fds: tuple[int, ...], spec: bytes) -> None:
        while True:
            try:
                protocol.send(self._socket, message, fds, spec=spec)
                return
            except BlockingIOError:
                await asyncio.sleep(0.001)
            except OSError as error:
                raise SystemFailure(f"the zygote does not listen: {error.strerror}", error.errno) from None

    def _readable(self) -> None:
        while True:
            try:
                packet = protocol.receive(self._socket)
            except BlockingIOError:
                return
            except OSError:
                packet = None
            if packet is None:
                self._disconnected()
                return
            message, received, _ = packet
            if "event" in message:
                self._on_event(message)
                continue
            future = self._pending.pop(message["id"], None)
            if future is None or future.done():
                for fd in received:
                    os.close(fd)
            else:
                future.set_result((message, received))

    def _disconnected(self) -> None:
        self.lost = True
        self.up.clear()
        self.gone.set()
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        failure = SystemFailure("the process that holds the containers has died: restart the engine")
        for future in self._pending.values():
            if not future.done():
                future.set_exception(failure)
        self._pending.clear()
        self._on_lost(failure)


def _as_error(error: dict[str, Any]) -> EngineError:
    message, errno, stage = error["message"], error["errno"], error["stage"]
    if stage in ("exec", "working directory"):
        return ExecFailed(errno, message, stage)
    if errno == _EEXIST:
        return Conflict(message)
    if errno == _ENOENT and not stage:
        return NotFound(message)
    return SystemFailure(f"{stage}: {message}" if stage else message, errno)
