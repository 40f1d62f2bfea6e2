"""One poll over all that the zygote waits for. Standard library only."""

from __future__ import annotations

import select
import sys
from collections.abc import Callable

Handler = Callable[[], None]


class Loop:
    """Calls the handler of each descriptor that is ready."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._handlers: dict[int, Handler] = {}

    def watch(self, fd: int, handler: Handler, events: int = select.EPOLLIN) -> None:
        self._handlers[fd] = handler
        self._poll.register(fd, events)

    def unwatch(self, fd: int) -> None:
        """If it is watched."""
        if self._handlers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def handler(self, fd: int) -> Handler | None:
        """Who is called for it, if it is watched."""
        return self._handlers.get(fd)

    def turn(self, patience: float | None) -> bool:
        """One round. False when nothing was ready within `patience` seconds (None: however long it takes)."""
        try:
            ready = self._poll.poll(patience)
        except InterruptedError:
            return True
        for fd, _ in ready:
            handler = self._handlers.get(fd)
            if handler is not None:
                _handle(handler)
        return bool(ready)


def _handle(handler: Handler) -> None:
    try:
        handler()
    except Exception:
        # A fault of ours in what concerns one container must not take all the others with it.
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
