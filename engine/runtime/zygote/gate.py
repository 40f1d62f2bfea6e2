"""From a container's birth to its program: its first process builds its world, waits at the gate and is let through.

Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import json
import time
from functools import partial

from engine.runtime.zygote import protocol
from engine.runtime.zygote.container import Container
from engine.runtime.zygote.loop import Loop
from engine.runtime.zygote.pumps import Pumps

TYPE_CHECKING = False  # typing is half a megabyte, and all of the zygote's children would carry it
if TYPE_CHECKING:
    from typing import Any

    from engine.runtime.zygote.container import Answer


class Gate:
    """Of all containers, on one loop. What a method returns is the answer; None where `reply` gets it later."""

    def __init__(self, loop: Loop, pumps: Pumps) -> None:
        self._loop, self._pumps = loop, pumps

    def listen(self, container: Container, reply: Answer, *, start: bool) -> dict[str, Any] | None:
        """Of a container that was just born. Answers at once; with a terminal, once that is there; with `start`, once
        it has passed."""
        self._loop.watch(container.sync.fileno(), partial(self._hear, container))
        born = {"ok": {"pid": container.pid}}
        if not container.tty:
            self._pumps.begin(container)
        if start:
            container.starter = lambda answer: reply(answer if "error" in answer else born)
            return None
        if container.tty:
            container.creator = reply
            return None
        return born

    def ready(self, container: Container, reply: Answer) -> dict[str, Any] | None:
        """Answers when it waits at the gate, or can't."""
        if container.error is not None:
            return {"error": container.error}
        if not container.ready:
            container.onlookers.append(reply)
            return None
        return {"ok": {}}

    def start(self, container: Container, reply: Answer) -> dict[str, Any] | None:
        """Answers when it is its program, or can't be."""
        if container.status != "created" or container.starter is not None:
            raise OSError(errno.EINVAL, f"the container is {container.status}", container.name)
        if container.error is not None:
            return {"error": container.error}
        container.starter = reply
        self._open(container)
        return None

    def hear_the_rest(self, container: Container) -> None:
        """What was reported before its end and not yet read: the end may be seen first."""
        while (handler := self._loop.handler(container.sync.fileno())) is not None:
            handler()

    def died(self, container: Container) -> None:
        """It has ended without a word before it was its program."""
        self._fail(container, _told(b""))

    def _hear(self, container: Container) -> None:
        """What its first process says until it is the program."""
        message = container.hear()
        if message is None:
            return
        if message == b"ready":
            if container.tty:
                try:
                    self._pumps.begin(container)
                except OSError as error:  # its log can't be kept
                    self._part(container)
                    self._fail(container, protocol.failure(error))
                    return
            container.ready = True
            if container.creator is not None:
                container.creator({"ok": {"pid": container.pid}})
                container.creator = None
            _tell(container.onlookers, {"ok": {}})
            container.onlookers.clear()
            self._open(container)
            return
        self._part(container)
        if message or not container.begun:
            self._fail(container, _told(message))
            return
        container.status = "running"
        container.started_at = time.time()
        if container.starter is not None:
            container.starter({"ok": {}})

    def _part(self, container: Container) -> None:
        """There is nothing more to hear; where it waits at the gate, it ends."""
        self._loop.unwatch(container.sync.fileno())
        container.sync.close()

    def _fail(self, container: Container, error: dict[str, Any]) -> None:
        container.error = error
        asked = [each for each in (container.creator, container.starter) if each is not None]
        _tell([*asked, *container.onlookers], {"error": error})
        container.onlookers.clear()
        # Nobody knows of it whose creation was never answered.
        container.doomed = container.doomed or container.creator is not None

    def _open(self, container: Container) -> None:
        if container.ready and container.starter is not None and not container.begun:
            # Whether it has gone meanwhile is seen by its end.
            with contextlib.suppress(OSError):
                container.sync.send(b"exec")
                container.begun = True


def _tell(answers: list[Answer], answer: dict[str, Any]) -> None:
    for each in answers:
        each(answer)


def _told(message: bytes) -> dict[str, Any]:
    if not message:
        return {"errno": 0, "message": "the container's first process was killed", "stage": "prepare"}
    told: dict[str, Any] = json.loads(message)
    return told
